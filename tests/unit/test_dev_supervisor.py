"""The supervisor, on programs and servers that are small: it starts all, keeps all alive, leaves nothing."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coordinator.dev.plan import plan_of
from coordinator.dev.servers.ports import free_port
from coordinator.dev.settings import DevSettings
from coordinator.registry import registry

pytestmark = pytest.mark.authors

# A run of the real supervisor in a process of its own, as it takes signals. The server is a process that sleeps;
# a program answers every request with 200 until it is told to fail.
DRIVER = """
import sys
from pathlib import Path
from coordinator.dev import helpers, install, programs, supervisor
from coordinator.dev.servers.server_set import ServerSet
from coordinator.dev.servers.process import Process
from coordinator.dev.servers.server import Server
from coordinator.service.errors import ConfigurationError

PROGRAM = '''
import http.server, os, signal, sys
if os.path.exists(sys.argv[2] + "-to-stop"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.path.exists(sys.argv[2]):
    print("I cannot live", flush=True)
    sys.exit(int(open(sys.argv[2]).read() or 7))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
'''

class Sleeper(Server):
    name = "sleeper"
    title = "Sleeper"
    not_ready = (OSError,)
    url = "sleep://"
    def _launch(self):
        if Path(wish + "-sleeper").exists():
            raise ConfigurationError("there is no room for it")
        return Process(["sleep", "1000"], log_path=self.log_path)
    def _probe(self):
        return "1"

class Set(ServerSet):
    def __init__(self, directory):
        super().__init__([Sleeper(directory / "sleeper")], None)
    def environment(self, account="operator"):
        return {"AMQP_URL": f"amqp://it's {account}", "LANE_DATABASE_URL": "lane", "LANE_READER_URL": "reader"}
    def migration_environment(self):
        return {"LANE_MIGRATION_URL": "owner"}

directory, wish, migration = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
def small(name, port, logs, stop_timeout_s):
    command = [sys.executable, "-c", PROGRAM, str(port), wish + "-" + name]
    return programs.Program(
        name, command, base_url=f"http://127.0.0.1:{port}", log_path=logs / f"{name}.log",
        stop_timeout_s=stop_timeout_s,
        account=f"of_{name}", reaches={"LANE_DATABASE_URL"} if name == "lane" else {"LANE_READER_URL"},
    )
install.needed = lambda wanted: ()
programs.coordinators = lambda services, logs: [small("lane", services[0].metrics.number, logs, 60)]
programs.gateways = lambda services, logs: [small("gateway", services[0].gateway.number, logs, 60)]
programs.effect_workers = lambda services, logs: []
programs.operations = lambda services, port, logs: small("operations", port.number, logs, 60)
helpers.programs = lambda helpers, logs: []
programs.migrate_command = lambda: ["sh", "-c", migration]
programs.accounts_command = lambda lanes: ["sh", "-c", f"test '{' '.join(lanes)}' = 'users payments'"]
# No database is there that could have a key.
supervisor.development_key = lambda services, workspace: None
supervisor.ServerSet.native = classmethod(lambda cls, directory, wanted, ports, **_: Set(directory))
try:
    sys.exit(supervisor.run("native", directory))
except ConfigurationError as error:
    print(error)
    sys.exit(2)
"""


class Run:
    """A supervisor in a process of its own, and what it says."""

    def __init__(self, directory: Path, migration: str) -> None:
        self.directory = directory
        self.wish = directory.parent / "fail"
        self.command = [sys.executable, "-c", DRIVER, str(directory), str(self.wish), migration]
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.said = ""
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.said += line
                self._news.notify_all()

    def wait_for(self, pattern: str, times: int = 1) -> None:
        with self._news:
            found = self._news.wait_for(lambda: len(re.findall(pattern, self.said)) >= times, 30)
            assert found, f"no {pattern!r} in:\n{self.said}"

    def pid_of(self, what: str) -> int:
        """Of the youngest process whose command line ends with this."""
        return max(int(entry.name) for entry, command in self.processes() if command.endswith(what))

    def processes(self) -> Iterator[tuple[Path, str]]:
        """The supervisor's children."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parent = int((entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
                    arguments = (entry / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ")
                    command = arguments.decode(errors="replace")
                except OSError:
                    continue
                if parent == self.process.pid:
                    yield entry, command

    def end(self) -> int:
        status = self.process.wait(30)
        self._reader.join()
        return status

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Run]]:
    fields = [name for name in DevSettings.model_fields if name.endswith("_port") and name != "gateway_port"]
    settings = [f"DEV_{name.upper()}" for name in fields]
    for setting in (*settings, *(port.setting for port in plan_of(registry(), DevSettings(), tmp_path, {}).ports)):
        monkeypatch.setenv(setting, str(free_port()))
    started: list[Run] = []

    def start(migration: str = "true") -> Run:
        started.append(Run(tmp_path / "run", migration))
        return started[-1]

    yield start
    for one in started:
        one.close()


def eventually_gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > deadline:
            return False
        threading.Event().wait(0.05)
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything_in_order_with_status_0(run: Callable[..., Run], number: signal.Signals) -> None:
    one = run()
    one.wait_for("Ctrl-C stops everything")
    pids = [int(entry.name) for entry, _ in one.processes()]
    assert len(pids) == 4
    one.process.send_signal(number)
    assert one.end() == 0, one.said
    assert eventually_gone(pids)
    written = (one.directory / "env").read_text().splitlines()
    assert written[0] == "export AMQP_URL='amqp://it'\\''s operator'"
    assert "export STRIPE_API_KEY='sk_test_sandbox'" in written
    # For `coordinator migrate` by hand.
    assert "export LANE_MIGRATION_URL='owner'" in written
    assert re.search(r"Sleeper 1 on 127.0.0.1:\d+ … \d+\.\d s", one.said)


def test_each_process_gets_its_own_account_and_no_address_that_it_does_not_need(
    run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of a shell that has sourced the addresses of another run.
    for setting in (
        "AMQP_URL",
        "LANE_DATABASE_URL",
        "LANE_READER_URL",
        "LANE_MIGRATION_URL",
        "LANE_MIGRATION_URL_FILE",
        "lane_database_url",
        "lane_migration_url",
        "amqp_url_file",
    ):
        monkeypatch.setenv(setting, "another's")
    one = run()
    one.wait_for("Ctrl-C stops everything")
    got, sourced = {}, {}
    for name in ("lane", "gateway"):
        environment = Path(f"/proc/{one.pid_of(f'fail-{name}')}/environ").read_text().split("\0")
        got[name] = sorted(each for each in environment if each.upper().startswith(("AMQP_", "LANE_")))
        assert "AMQP_URL" in (one.directory / "programs" / name).read_text()
        assert (one.directory / "programs" / name).stat().st_mode & 0o077 == 0
        # Whoever starts such a process by hand, in a shell that was an operator's, gives it no more either.
        script = f". {one.directory / 'env'}; . {one.directory / 'programs' / name}; exec env -0"
        by_hand = subprocess.run(["sh", "-c", script], capture_output=True, check=True, text=True).stdout.split("\0")
        own = [each for each in by_hand if each.startswith(("AMQP_URL", "LANE_"))]
        of_shell = ("LANE_MIGRATION_URL_FILE=another's",)
        sourced[name] = sorted(each for each in own if each not in of_shell)
    believed = "LANE_GATEWAY_ACCOUNTS=users_gateway items_gateway payments_gateway"
    assert got == {
        "lane": ["AMQP_URL=amqp://it's of_lane", "LANE_DATABASE_URL=lane", believed],
        "gateway": ["AMQP_URL=amqp://it's of_gateway", believed, "LANE_READER_URL=reader"],
    }
    assert sourced == got
    one.process.send_signal(signal.SIGTERM)
    assert one.end() == 0, one.said


def test_a_process_that_dies_is_reported_and_started_again(run: Callable[..., Run]) -> None:
    one = run()
    one.wait_for("Ctrl-C stops everything")
    os.kill(one.pid_of("fail-gateway"), signal.SIGKILL)
    one.wait_for(r"gateway died: killed by SIGKILL; the end of \S+gateway.log")
    one.wait_for("gateway started again")
    assert re.search(r"1 coordinator, 0 effect workers, 1 gateway … ", one.said)
    os.kill(one.pid_of("sleep 1000"), signal.SIGTERM)
    one.wait_for("Sleeper died: killed by SIGTERM")
    one.wait_for("Sleeper started again")
    one.process.send_signal(signal.SIGINT)
    assert one.end() == 0, one.said


def test_one_that_dies_more_than_three_times_in_a_minute_ends_the_run_with_status_1(
    run: Callable[..., Run],
) -> None:
    one = run()
    one.wait_for("Ctrl-C stops everything")
    pids = [int(entry.name) for entry, _ in one.processes()]
    one.wish.with_name("fail-lane").touch()
    os.kill(one.pid_of("fail-lane"), signal.SIGKILL)
    assert one.end() == 1
    assert one.said.count("lane died: exit status 7") == 3
    assert "I cannot live" in one.said
    assert "lane died 4 times within 60 s: giving up (one that you kill yourself counts, too)" in one.said
    assert eventually_gone(pids)


def test_one_whose_configuration_is_at_fault_is_not_started_again(run: Callable[..., Run]) -> None:
    one = run()
    one.wait_for("Ctrl-C stops everything")
    one.wish.with_name("fail-lane").write_text("2")
    os.kill(one.pid_of("fail-lane"), signal.SIGKILL)
    assert one.end() == 1
    assert one.said.count("lane died: exit status 2") == 1
    assert one.said.count("lane started again") == 1
    assert "lane cannot run as it is configured" in one.said


def test_a_failed_migration_ends_the_run_with_its_log(run: Callable[..., Run]) -> None:
    one = run("echo no such table; exit 3")
    assert one.end() == 1
    assert "migrate died: exit status 3" in one.said
    assert "no such table" in one.said


def test_why_it_cannot_start_is_said_before_that_it_stops(run: Callable[..., Run], tmp_path: Path) -> None:
    (tmp_path / "fail-sleeper").touch()
    one = run()
    assert one.end() == 2
    assert 0 < one.said.index("there is no room for it") < one.said.index("stopping: giving up"), one.said
    assert one.said.count("there is no room for it") == 1
    done = subprocess.run(one.command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "there is no room for it\n")


def test_a_signal_while_it_starts_stops_it(run: Callable[..., Run]) -> None:
    one = run("echo $AMQP_URL; exec sleep 1000")
    one.wait_for("Sleeper 1 on")
    one.process.send_signal(signal.SIGINT)
    assert one.end() == 0, one.said


def test_a_second_signal_kills_what_does_not_stop(run: Callable[..., Run], tmp_path: Path) -> None:
    (tmp_path / "fail-gateway-to-stop").touch()
    one = run()
    one.wait_for("Ctrl-C stops everything")
    pids = [int(entry.name) for entry, _ in one.processes()]
    one.process.send_signal(signal.SIGINT)
    one.wait_for("stopping: SIGINT")
    with pytest.raises(subprocess.TimeoutExpired):
        one.process.wait(1)
    one.process.send_signal(signal.SIGINT)
    assert one.end() == 0, one.said
    assert eventually_gone(pids)


def test_nothing_survives_a_supervisor_that_is_killed(run: Callable[..., Run]) -> None:
    one = run()
    one.wait_for("Ctrl-C stops everything")
    pids = [int(entry.name) for entry, _ in one.processes()]
    one.process.kill()
    one.end()
    assert eventually_gone(pids)


def test_a_second_run_on_the_same_directory_does_not_start(run: Callable[..., Run]) -> None:
    one = run()
    one.wait_for("Ctrl-C stops everything")
    two = run()
    assert two.end() == 2
    assert f"process {one.process.pid} runs on {one.directory} already" in two.said


def test_a_run_that_is_refused_leaves_nothing_behind(run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("DEV_USERS_METRICS_PORT", str(taken.getsockname()[1]))
        refused = run()
        assert refused.end() == 2
    assert "is in use" in refused.said
    assert not refused.directory.exists()


def test_a_program_that_is_not_ready_in_time_ends_the_run(run: Callable[..., Run]) -> None:
    one = run("true")
    one.wish.with_name("fail-gateway").touch()
    assert one.end() == 1
    assert "gateway died: exit status 7" in one.said


def test_output_that_takes_nothing_ends_no_run() -> None:
    """As of a terminal that was closed: the run is to stop in order."""
    program = (
        "import click, sys\n"
        "from coordinator import ending\n"
        "from coordinator.dev.members import say\n"
        "@click.command()\n"
        "def dev():\n"
        "    say('stopping')\n"
        "    print('it goes on', file=sys.stderr)\n"
        "ending.run(dev, 'dev', [])\n"
    )
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60
        )
    assert done.stderr.startswith("it goes on\n")
