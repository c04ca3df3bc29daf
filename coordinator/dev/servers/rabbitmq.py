"""A private RabbitMQ."""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pika
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPError

from coordinator.dev.servers.addresses import ADMINISTRATOR, HOST, amqp_url
from coordinator.dev.servers.ports import free_port
from coordinator.dev.servers.process import Process
from coordinator.dev.servers.programs import require
from coordinator.dev.servers.rabbitmq_home import is_plain, without_plugins
from coordinator.dev.servers.server import Server
from coordinator.transports.rabbitmq.definitions import definitions, password_hash
from coordinator.transports.rabbitmq.rights import BrokerAccount

_CONFIGURATION = """\
listeners.tcp.local = {host}:{port}
load_definitions = /proc/self/cwd/{definitions}
log.console = true
log.console.level = info
disk_free_limit.absolute = 50MB
max_message_size = {message_bytes_max}
frame_max = {frame_bytes_max}
tcp_listen_options.backlog = 128
tcp_listen_options.nodelay = true
tcp_listen_options.linger.on = true
tcp_listen_options.linger.timeout = 0
tcp_listen_options.exit_on_close = false
tcp_listen_options.send_timeout = {send_timeout_ms}
tcp_listen_options.send_timeout_close = true
"""
MESSAGE_BYTES_MAX = 2 << 20
"""Twice the largest message that a lane takes. It bounds how much a stranger makes the broker keep, copy and print."""
FRAME_BYTES_MAX = 8192
"""The smallest frame that RabbitMQ 4 takes. It bounds a message's headers, which no limit of a queue counts, and which
take up to 70 times their bytes of the broker's memory when they are delivered again."""
SEND_TIMEOUT_MS = 15_000
"""The broker keeps in memory what a client has not read, and ends the connection of a client that has read nothing for
this long. One such option replaces all of RabbitMQ's own, so the configuration repeats those."""
_DEFINITIONS = "definitions.json"
_CONTROL_TIMEOUT_S = 60
_COOKIE_BYTES = 32


class RabbitMQ(Server):
    """Has these accounts, and an administrator; a password is its account's name. Nobody can log in as guest.

    It has an epmd of its own, and Erlang's distribution is on loopback too.
    """

    name = "rabbitmq"
    title = "RabbitMQ"
    not_ready: ClassVar[tuple[type[Exception], ...]] = (AMQPError, AMQPConnectorException, OSError)
    plugins: Sequence[str] = ()
    """Those that are enabled."""
    node = "coordinator@localhost"
    """Its name in Erlang."""
    cookie: str | None = None
    """With it one does as the user who runs the node; None: a new one at each start. Erlang would make one of 36 bits,
    and give it its mode after it has written it."""

    def __init__(
        self,
        directory: Path,
        port: int | None = None,
        *,
        accounts: Sequence[BrokerAccount] = (),
        dist_port: int | None = None,
        epmd_port: int | None = None,
    ) -> None:
        super().__init__(directory, port)
        self._accounts = accounts
        self.dist_port = dist_port or free_port()
        self.epmd_port = epmd_port or free_port()
        self._epmd: Process | None = None

    @property
    def url(self) -> str:
        """The administrator's."""
        return amqp_url(self.port)

    @property
    def pids(self) -> list[int]:
        return [*super().pids, *([self._epmd.pid] if self._epmd else [])]

    @property
    def alive(self) -> bool:
        return super().alive and self._epmd is not None and self._epmd.alive

    def stop(self) -> None:
        super().stop()
        if self._epmd:
            self._epmd.stop(signal.SIGTERM, self.stop_timeout_s)

    def kill(self) -> None:
        # The broker first: it would start an epmd of its own in place of one that is gone.
        super().kill()
        if self._epmd:
            self._epmd.kill()

    def start(self) -> None:
        if super().alive and not self.alive:
            super().kill()  # without its epmd only half of it works
        super().start()

    def pause(self) -> None:
        super().pause()
        if self._epmd:
            self._epmd.pause()

    def resume(self) -> None:
        if self._epmd:
            self._epmd.resume()
        super().resume()

    def control(self, *command: str) -> str:
        """What a command of rabbitmqctl says. Raises subprocess.SubprocessError."""
        ran = subprocess.run(
            [require("rabbitmq-server").resolve().parent / "rabbitmqctl", "-n", self.node, *command],
            env={**_inherited(), **self._environment()},
            check=True,
            capture_output=True,
            timeout=_CONTROL_TIMEOUT_S,
        )
        return ran.stdout.decode()

    def write_configuration(self) -> None:
        """Write rabbitmq.conf, and the accounts that it names. They are as written there after each start."""
        of_all = {each.name: password_hash(each.name) for each in self._accounts}
        made = definitions(self._accounts, "/", of_all, {ADMINISTRATOR: password_hash(ADMINISTRATOR)}, ["guest"])
        (self.directory / _DEFINITIONS).write_text(json.dumps(made))
        (self.directory / "rabbitmq.conf").write_text(
            _CONFIGURATION.format(
                host=HOST,
                port=self.port,
                definitions=_DEFINITIONS,
                message_bytes_max=MESSAGE_BYTES_MAX,
                frame_bytes_max=FRAME_BYTES_MAX,
                send_timeout_ms=SEND_TIMEOUT_MS,
            )
        )

    def _prepare(self) -> None:
        self.data.mkdir(exist_ok=True)
        self.write_configuration()
        self._write_for_it(self.directory / ".erlang.cookie", self.cookie or secrets.token_hex(_COOKIE_BYTES))
        (self.directory / "enabled_plugins").write_text(f"[{','.join(self.plugins)}].\n")
        if self._epmd is None or not self._epmd.alive:
            self._epmd = Process(
                [require("epmd"), "-port", str(self.epmd_port), "-address", HOST],
                log_path=self.directory / "epmd.log",
                directory=self.directory,
            )

    def _launch(self) -> Process:
        server = require("rabbitmq-server")
        home = {} if self.plugins else without_plugins(server, self.directory / "home")
        return Process(
            [server],
            log_path=self.log_path,
            environment={**_inherited(), **self._environment(), **home},
            directory=self.directory,
        )

    @property
    def _data_as_it_is_told(self) -> str:
        """The path of its data; within its working directory if the real path has characters special to a shell.

        RabbitMQ asks a shell's command how much room is left there, and escapes nothing: a # or a quote in the name of
        a folder above would keep it waiting for ever.
        """
        return str(self.data) if is_plain(self.data) else f"/proc/self/cwd/{self.data.name}"

    def _environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.directory),  # the Erlang cookie's place
            # With it the shell wrapper execs Erlang. Otherwise it stays Erlang's parent, and a kill could miss Erlang.
            "RUNNING_UNDER_SYSTEMD": "true",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": str(self.dist_port),
            "RABBITMQ_MNESIA_BASE": self._data_as_it_is_told,
            "RABBITMQ_LOG_BASE": str(self.directory),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(self.directory / "rabbitmq.pid"),
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "enabled_plugins"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,  # else Debian's /etc/rabbitmq/rabbitmq-env.conf
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.directory / "advanced.config"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self.directory / "schema"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_CRASH_DUMP": str(self.directory / "erl_crash.dump"),
        }

    def _probe(self) -> str:
        with socket.create_connection((HOST, self.port), timeout=1):
            pass  # pika logs a traceback for every refusal
        parameters = pika.URLParameters(self.url)
        parameters.socket_timeout = parameters.stack_timeout = parameters.blocked_connection_timeout = 5
        with contextlib.closing(pika.BlockingConnection(parameters)) as connection:
            connection.channel().close()
            version = connection._impl.server_properties["version"]  # noqa: SLF001 - pika tells it nowhere else
            return str(version)


def _inherited() -> dict[str, str]:
    """Our environment, without the variables that configure RabbitMQ."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("RABBITMQ_", "ERL_"))}
