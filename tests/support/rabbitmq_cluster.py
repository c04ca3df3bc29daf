"""Three nodes of RabbitMQ on loopback, as one cluster: with the settings that docs/SCALING.md gives for one."""

import json
import re
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from coordinator.dev.servers.addresses import ADMINISTRATOR, HOST
from coordinator.dev.servers.ports import free_port
from coordinator.dev.servers.process import Process
from coordinator.dev.servers.programs import require
from coordinator.dev.servers.server import Server
from coordinator.transports.rabbitmq.rights import BrokerAccount
from tests.support.managed_rabbitmq import ManagedRabbitMQ
from tests.support.rabbitmqctl import control_environment, control_program, evaluate
from tests.support.servers import quorum_queues_are_noted

LEADER_TIMEOUT_MS = 1000
_COOKIE = "one-for-all-nodes"
CLUSTER = """\
cluster_partition_handling = pause_minority
cluster_formation.peer_discovery_backend = classic_config
"""
_HOME_OF = """
hd([node(amqqueue:get_pid(Queue)) || Queue <- rabbit_amqqueue:list(<<"/">>),
 string:prefix(element(4, amqqueue:get_name(Queue)), <<"{prefix}">>) =/= nomatch]).
"""
_CUT = "[erlang:set_cookie(Node, another) || Node <- {others}], [erlang:disconnect_node(Node) || Node <- {others}]."
"""All at once: nodes that see one link break before the other take it for a partial partition, in which each of them
pauses until the whole cluster is back."""
_MEND = (
    "[erlang:set_cookie(Node, '{cookie}') || Node <- {others}], [net_kernel:connect_node(Node) || Node <- {others}]."
)
_WITHOUT_LEADER = """
[element(4, amqqueue:get_name(Queue)) || Queue <- rabbit_amqqueue:list(<<"/">>),
 amqqueue:get_type(Queue) =:= rabbit_quorum_queue,
 element(1, ra:members({{element(1, amqqueue:get_pid(Queue)), node()}}, {timeout_ms})) =/= ok].
"""
"""Asked anew: what `list_queues` says may be the leader before, which did not hear of its end."""
ADVANCED = "[{kernel, [{net_ticktime, 10}]}].\n"


class ClusterNode(ManagedRabbitMQ):
    """One of several nodes, which share the first one's epmd."""

    cookie = _COOKIE

    def __init__(
        self, directory: Path, number: int, names: Sequence[str], accounts: Sequence[BrokerAccount], epmd_port: int
    ) -> None:
        super().__init__(directory, accounts, epmd_port)
        self.node = names[number]
        self._names = names

    def write_configuration(self) -> None:
        super().write_configuration()
        (self.directory / "advanced.config").write_text(ADVANCED)
        with (self.directory / "rabbitmq.conf").open("a") as file:
            file.write(CLUSTER)
            for number, name in enumerate(self._names, 1):
                file.write(f"cluster_formation.classic_config.nodes.{number} = {name}\n")

    def _may_launch_again(self, log_tail: str) -> bool:
        # RabbitMQ 3.10 asks the others for their feature flags. One that is about to start, too, has none yet, and the
        # node ends. Whatever runs services starts it again.
        return "incompatible_feature_flags" in log_tail

    def stop(self) -> None:
        Server.stop(self)

    def kill(self) -> None:
        Server.kill(self)

    def pause(self) -> None:
        Server.pause(self)

    def resume(self) -> None:
        Server.resume(self)

    def takes_clients(self) -> bool:
        """Whether it answers in AMQP; one that has paused itself runs, and does not."""
        try:
            self._probe()
        except self.not_ready:
            return False
        return self.alive

    def share(self, epmd: Process) -> None:
        """Use this one, which outlives the node."""
        self._epmd = epmd


class RabbitMQCluster:
    """Three nodes. The quorum queues that are declared while all of them run have a member on each."""

    def __init__(self, directory: Path, accounts: Sequence[BrokerAccount]) -> None:
        self._directory = directory
        names = [f"node{number}@localhost" for number in (1, 2, 3)]
        self.epmd_port = free_port()
        self._epmd: Process | None = None
        self.nodes = [
            ClusterNode(directory / name.partition("@")[0], number, names, accounts, self.epmd_port)
            for number, name in enumerate(names)
        ]

    def url(self, account: str = ADMINISTRATOR) -> str:
        """All nodes."""
        hosts = ",".join(f"{HOST}:{node.port}" for node in self.nodes)
        return f"amqp://{account}:{account}@{hosts}/%2F"

    def start(self) -> None:
        self._directory.mkdir(exist_ok=True)
        self._epmd = Process(
            [require("epmd"), "-port", str(self.epmd_port), "-address", HOST],
            log_path=self._directory / "epmd.log",
            directory=self._directory,
        )
        for node in self.nodes:
            node.share(self._epmd)
        self.nodes[0].start()
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(ClusterNode.start, self.nodes[1:]))

    def start_again(self) -> None:
        """The nodes that are dead, at once: after a common end each waits for the one that ended last."""
        with ThreadPoolExecutor(len(self.nodes)) as threads:
            list(threads.map(ClusterNode.start, [node for node in self.nodes if not node.alive]))

    @property
    def living(self) -> ClusterNode:
        """The first node that runs; the first of all if none does."""
        return next((node for node in self.nodes if node.alive), self.nodes[0])

    def cut(self, node: ClusterNode, others: Sequence[ClusterNode]) -> None:
        """Cut its links to others: the node takes no connection of theirs, and makes none."""
        self._link(node, others, _CUT)

    def mend(self, node: ClusterNode, others: Sequence[ClusterNode]) -> None:
        """Links may be made again."""
        self._link(node, others, _MEND)

    def _link(self, node: ClusterNode, others: Sequence[ClusterNode], how: str) -> None:
        names = ", ".join(f"'{other.node}'" for other in others)
        evaluate(node, how.format(others=f"[{names}]", cookie=_COOKIE))

    def heal(self) -> None:
        """All nodes run, and are linked."""
        for node in self.nodes:
            node.resume()
        self.start_again()

    @property
    def is_noted(self) -> bool:
        """Whether each node survives a SIGKILL with the members that it has.

        One that is killed before comes back without them, and for good where it had the same names before: "could not
        be restarted {error,enoent}".
        """
        return all(quorum_queues_are_noted(node) for node in self.nodes)

    def lack(self) -> str:
        """What is missing until all nodes take clients, and each quorum queue has all members and a leader."""
        away = [node.node for node in self.nodes if not node.takes_clients()]
        if away:
            return f"{', '.join(away)} takes no clients"
        try:
            queues, leaderless = self.queues(), self._without_leader()
        except (subprocess.SubprocessError, AssertionError) as error:
            return f"rabbitmqctl says {error}"
        behind = {
            name: queue["online"]
            for name, queue in queues.items()
            if queue["type"] == "quorum" and len(queue["online"]) < len(self.nodes)
        }
        if behind:
            return f"only these members are online: {behind}"
        return f"without a leader: {', '.join(leaderless)}" if leaderless else ""

    def _without_leader(self) -> list[str]:
        """The quorum queues whose members know none. After two faults within seconds RabbitMQ 3.10 may elect none."""
        said = evaluate(self.living, _WITHOUT_LEADER.format(timeout_ms=LEADER_TIMEOUT_MS))
        return re.findall(r'<<"(.+?)">>', said)

    def stop(self) -> None:
        for node in self.nodes:
            node.kill()
        if self._epmd is not None:
            self._epmd.kill()

    def named(self, name: str) -> ClusterNode:
        """The node of this name."""
        return next(node for node in self.nodes if node.node == name)

    def queues(self, turn: int = 0) -> dict[str, dict[str, Any]]:
        """What a node that lives says of all queues, by their names; of several the one whose turn it is.

        One that was stopped for long may lack the others until it is restarted, and then knows no leader among them.
        """
        living = [node for node in self.nodes if node.alive] or self.nodes[:1]
        alive = living[turn % len(living)]
        listed = subprocess.run(
            [
                *(control_program(), "--quiet", "-n", alive.node, "list_queues"),
                *("name", "type", "pid", "leader", "members", "online", "--formatter", "json"),
            ],
            env=control_environment(alive),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return {queue["name"]: queue for queue in json.loads(listed.stdout)}

    def run_script(self, script: str) -> None:
        """As an administrator does on the first node."""
        environment = control_environment(self.nodes[0])
        environment["PATH"] = f"{control_program().parent}:{environment['PATH']}"
        done = subprocess.run(["sh", "-e"], input=script, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def home_of(self, prefix: str) -> ClusterNode:
        """The node of the classic queue whose name begins so; the first, if there are several."""
        alive = self.living
        name = evaluate(alive, _HOME_OF.format(prefix=prefix)).strip()
        return self.named(name.strip("'"))
