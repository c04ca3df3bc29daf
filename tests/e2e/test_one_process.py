"""`coordinator dev module:NAME`: a service in one process on a file, as its author meets it."""

import asyncio
import json
import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from click.testing import CliRunner, Result

from coordinator.cli import cli
from coordinator.dev.servers.ports import free_port
from coordinator.dev.servers.process import Process
from coordinator.registry import APP_SETTING
from tests.support.system import wait_until

pytestmark = [pytest.mark.timeout(300), pytest.mark.authors]

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text().partition("## Try it with")[2].partition("## Try the reference system")[0]
SEATS = "seats:seats"
"""The service of README.md."""
TUTORIAL = (ROOT / "docs" / "YOUR_SERVICE.md").read_text()
NOTES = "notes:notes"
"""The service of docs/YOUR_SERVICE.md whose rules say who may do what."""
LEDGER = "tests.support.ledger:LEDGER"
STARTED = "Ctrl-C stops it"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
WRITERS = 40
KILLED_AFTER = 400
ACCEPTED = 20


class Run:
    """A run of one service in a folder of its own. It may be started again and again."""

    def __init__(self, target: str, folder: Path, name: str = "") -> None:
        name = name or target.rpartition(":")[2]
        self.folder = folder
        self.data = folder / ".dev" / "data" / f"{name.lower()}.sqlite"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: Process | None = None
        self.starts = 0
        self._target = target
        self._environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            f"DEV_{name.upper()}_PORT": str(self.port),
            "DEV_OPERATIONS_PORT": str(free_port()),
        }

    def start(self) -> str:
        """What it says, once it is ready."""
        self.starts += 1
        log_path = self.folder / f"dev-{self.starts}.log"
        command = [sys.executable, "-m", "coordinator", "dev", self._target]
        process = self.process = Process(
            command, log_path=log_path, environment=self._environment, directory=self.folder
        )
        wait_until(
            lambda: not process.alive or STARTED in log_path.read_text(), "it is ready", process, START_TIMEOUT_S
        )
        assert process.alive, log_path.read_text()
        return log_path.read_text()

    def stop(self, number: signal.Signals) -> int | None:
        assert self.process is not None
        self.process.stop(number, STOP_TIMEOUT_S)
        return self.process.exit_status

    def second(self, *options: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        """Another process of the same service, which is to be refused."""
        command = [sys.executable, "-m", "coordinator", "dev", self._target, *options]
        environment = self._environment | {"DEV_OPERATIONS_PORT": str(free_port())} | settings
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    def operate(self, *arguments: str, status: int = 0) -> Any:
        """What an operator's command prints, as JSON. It has the settings of the file that the run has written."""
        ran = self._operated(*arguments, "--json")
        assert ran.exit_code == status, ran.stderr
        return json.loads(ran.stdout)

    def refusal(self, *arguments: str) -> str:
        """The words with which an operator's command is refused."""
        ran = self._operated(*arguments)
        assert ran.exit_code == 1, ran.stdout
        return ran.stderr

    def _operated(self, *arguments: str) -> Result:
        settings = dict(re.findall(r"export (\w+)='(.*)'", (self.folder / ".dev" / "env").read_text()))
        return CliRunner().invoke(cli, arguments, env={"AMQP_URL": None, **settings})


@pytest.fixture
def seats(tmp_path: Path) -> Iterator[Run]:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "seats.py").write_text(code)
    yield from _run(SEATS, tmp_path)


@pytest.fixture
def notes(tmp_path: Path) -> Iterator[Run]:
    (code,) = re.findall(r"```python\n# shop/notes.py\n(.*?)```", TUTORIAL, re.DOTALL)
    (tmp_path / "notes.py").write_text(code)
    yield from _run(NOTES, tmp_path)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Run]:
    yield from _run(LEDGER, tmp_path)


def _run(target: str, folder: Path) -> Iterator[Run]:
    run = Run(target, folder)
    yield run
    if run.process is not None:
        run.process.kill()


def fetched(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def status_at(host: str, url: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Host": host}), timeout=30) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        return error.code


def test_the_line_that_it_prints_works_and_the_next_run_finds_what_was_written(seats: Run) -> None:
    said = seats.start()
    (curl,) = re.findall(r"try: (curl .*)", said)
    tried = subprocess.run(["bash", "-c", f"{curl} -s"], capture_output=True, text=True, timeout=30, check=True)
    (outcome,) = json.loads(tried.stdout)
    assert (outcome["status"], outcome["sequence"]) == ("applied", 1)
    by_another = ["bash", "-c", f"{curl} -s -H 'Origin: https://elsewhere.example'"]
    refused = subprocess.run(by_another, capture_output=True, text=True, timeout=30, check=True)
    assert json.loads(refused.stdout)["code"] == "forbidden"

    in_same_folder = seats.second()
    other = {"DEV_SEATS_PORT": str(free_port()), "SEATS_DATABASE_URL": f"sqlite:///{seats.data}"}
    on_same_file = seats.second("--dir", "other", **other)
    assert (in_same_folder.returncode, on_same_file.returncode) == (2, 2)
    assert re.search(r"process \d+ runs on .*\.dev already", in_same_folder.stderr)
    assert "seats.sqlite: another process runs a lane on this file" in on_same_file.stderr

    assert seats.stop(signal.SIGINT) == 0
    seats.start()
    assert fetched(f"{seats.url}/commands/{outcome['command_id']}")["sequence"] == 1


async def test_kill_9_loses_nothing_that_was_acknowledged_and_a_repetition_is_applied_once(ledger: Run) -> None:
    ledger.start()
    opened = await _issued(ledger.url, [{"type": "ledger.open", "args": {"owner": "ada"}, "id": str(uuid4())}])
    assert opened[0]["status"] == "applied"

    sent: list[str] = []
    acknowledged: dict[str, dict[str, Any]] = {}
    enough = asyncio.Event()

    async def issue(session: aiohttp.ClientSession, **headers: str) -> dict[str, Any]:
        sent.append(command_id := str(uuid4()))
        body = [{"type": "ledger.deposit", "args": {"id": 1, "amount": 1}, "id": command_id}]
        async with session.post(f"{ledger.url}/commands", json=body, headers=headers) as response:
            outcome: dict[str, Any]
            (outcome,) = await response.json()
        return outcome

    async def write(session: aiohttp.ClientSession) -> None:
        with suppress(aiohttp.ClientError, ConnectionError):
            while True:
                outcome = await issue(session)
                acknowledged[outcome["command_id"]] = outcome
                if len(acknowledged) >= KILLED_AFTER:
                    enough.set()

    async with aiohttp.ClientSession() as session:
        writing = [asyncio.create_task(write(session)) for _ in range(WRITERS)]
        async with asyncio.timeout(START_TIMEOUT_S):
            await enough.wait()
        # From here on commands are accepted and not applied.
        await asyncio.to_thread(ledger.operate, "pause", "ledger", "--reason", "it is to be killed")
        waiting = await asyncio.gather(*(issue(session, Prefer="respond-async") for _ in range(ACCEPTED)))
        assert {each["status"] for each in waiting} == {"pending"}
        accepted = [each["command_id"] for each in waiting]
        assert ledger.process is not None
        ledger.process.kill()
        await asyncio.gather(*writing)
    assert len(sent) > len(acknowledged) + len(accepted), "something was under way"

    await asyncio.to_thread(ledger.operate, "resume", "ledger")
    await asyncio.to_thread(ledger.start)
    async with asyncio.timeout(START_TIMEOUT_S), aiohttp.ClientSession() as session:
        for command_id in accepted:
            # Nobody sends it again: it must come from the file of accepted commands.
            while True:
                async with session.get(f"{ledger.url}/commands/{command_id}") as response:
                    if response.status == 200:
                        break
                    assert response.status == 202, f"{command_id} is lost"
    repeated = await _issued(
        ledger.url, [{"type": "ledger.deposit", "args": {"id": 1, "amount": 1}, "id": each} for each in sent]
    )
    again = {outcome["command_id"]: outcome for outcome in repeated}
    assert {each["status"] for each in repeated} == {"applied"}
    assert {each: again[each]["sequence"] for each in acknowledged} == {
        each: outcome["sequence"] for each, outcome in acknowledged.items()
    }
    assert all(again[each]["replayed"] for each in (*acknowledged, *accepted))
    nothing = {"type": "ledger.deposit", "args": {"id": 1, "amount": 0}, "id": str(uuid4())}
    (last,) = await _issued(ledger.url, [nothing])
    assert last["result"]["balance"] == len(sent)


async def _issued(url: str, commands: list[dict[str, Any]]) -> list[dict[str, Any]]:
    outcomes: list[dict[str, Any]] = []
    async with aiohttp.ClientSession() as session:
        for start in range(0, len(commands), 500):
            async with session.post(f"{url}/commands", json=commands[start : start + 500]) as response:
                outcomes += await response.json()
    return outcomes


def test_an_operator_has_all_commands_beside_the_running_process(ledger: Run) -> None:
    ledger.start()
    assert stat.S_IMODE(Path(f"{ledger.data}-operators").stat().st_mode) == 0o600

    def send(command_type: str, *, status: int = 0, **arguments: object) -> Any:
        return ledger.operate("send", command_type, json.dumps(arguments), "--wait", "30", status=status)

    opened = send("ledger.open", owner="ada")
    assert opened["status"] == "applied"
    send("ledger.remark", id=1, note="broken")
    failed = send("ledger.fragile", status=1, id=1, amount=5)
    assert failed["status"] == "failed"
    waits = ledger.operate("send", "ledger.fragile", json.dumps({"id": 1, "amount": 7}))
    assert ledger.operate("drain", "ledger")["sequence"] > opened["sequence"]
    (lane,) = ledger.operate("status")
    assert (lane["ready"], lane["dead_letters"], lane["errors"]) == (0, 1, [])
    (key,) = ledger.operate("parked")
    assert key["waiting"] == [waits["command_id"]]

    assert ledger.operate("pause", "ledger", "--reason", "a look")["paused"] == "a look"
    mended = ledger.operate("send", "ledger.remark", json.dumps({"id": 1, "note": None}))
    assert mended["status"] == "pending"
    assert ledger.operate("resume", "ledger")["was_paused"]
    ledger.operate("drain", "ledger")
    (letter,) = ledger.operate("dead", "list")
    assert letter["command_id"] == failed["command_id"]
    ledger.operate("dead", "replay", letter["command_id"])
    ledger.operate("drain", "ledger")
    assert ledger.operate("command", waits["command_id"])["status"] == "applied"
    assert ledger.operate("log", "prune", "ledger", "--older-than", "7d")["deleted"] == 0
    assert "no queue to delete" in ledger.refusal("queue", "delete", "ledger")

    ledger.stop(signal.SIGTERM)
    assert not Path(f"{ledger.data}-operators").exists()
    assert "no process takes orders for this lane" in ledger.refusal("drain", "ledger")


def test_the_first_session_of_the_readme_is_as_it_says(seats: Run) -> None:
    seats.start()
    (console,) = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    session = re.findall(r"^\$ (curl .*)\n(.*)$", console, re.MULTILINE)
    assert len(session) == 3
    for curl, answer in session:
        line = curl.replace("localhost:8080", f"127.0.0.1:{seats.port}")
        ran = subprocess.run(["bash", "-c", f"{line} -s"], capture_output=True, text=True, timeout=30, check=True)
        shown = ".*".join(map(re.escape, answer.replace("...", "\0").split("\0")))
        assert re.fullmatch(shown, ran.stdout), ran.stdout


def test_a_service_with_rules_asks_for_a_key_which_its_author_gets(notes: Run) -> None:
    said = notes.start()
    (curl,) = re.findall(r"try: (curl .*)", said)
    without = re.sub(r" -H 'Authorization: [^']*'", "", curl)
    told = [
        json.loads(subprocess.run(["bash", "-c", f"{line} -s"], capture_output=True, timeout=30, check=True).stdout)
        for line in (without, curl)
    ]
    assert told[0]["code"] == "unauthenticated"
    assert told[1][0]["status"] == "applied"
    # As the document says, in another terminal.
    (document,) = re.findall(r"^(source \.dev/env\ncurl .*/notes/.*)$", TUTORIAL, re.MULTILINE)
    line = document.replace("localhost:8080", f"127.0.0.1:{notes.port}")
    ran = subprocess.run(
        ["bash", "-c", f"{line} -s"], cwd=notes.folder, capture_output=True, text=True, timeout=30, check=True
    )
    assert json.loads(ran.stdout)["owner"] == "developer"
    command = f"source .dev/env; {sys.executable} -m coordinator keys create notes --subject ada"
    ran = subprocess.run(
        ["bash", "-c", command], cwd=notes.folder, capture_output=True, text=True, timeout=60, check=True
    )
    other = ran.stdout.strip()

    def listed() -> Any:
        request = urllib.request.Request(f"{notes.url}/notes/notes", headers={"Authorization": f"Bearer {other}"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)["items"]
        except urllib.error.HTTPError as error:
            return error.code

    wait_until(lambda: listed() != 401, "the key counts")
    assert listed() == []


def test_tenants_share_the_port_each_at_his_host(tmp_path: Path) -> None:
    run = Run("tests.support.halls:APP", tmp_path, "gateway")
    try:
        said = run.start()
        for number, tenant in enumerate(("acme", "bolt"), start=1):
            host = f"{tenant}.localhost:{run.port}"
            assert re.search(rf"halls-{tenant} +http://{host} ", said)
            headers = {"Host": host, "Content-Type": "application/json", "Idempotency-Key": tenant}
            # The second is of a service that tenants share.
            for path, arguments, place in (
                ("halls/commands/let_in", {"name": tenant}, f"halls-{tenant}=1"),
                ("posters/commands/hang_up", {"text": tenant}, f"posters={number}"),
            ):
                asked = urllib.request.Request(f"{run.url}/{path}", json.dumps(arguments).encode(), headers)
                with urllib.request.urlopen(asked, timeout=30) as answer:
                    assert answer.headers["Read-After"] == place
        assert fetched(f"{run.url}/readyz")["checks"] == {"tenants": "ok"}
        with pytest.raises(urllib.error.HTTPError, match="421"):
            fetched(f"{run.url}/docs")

        # What keeps one of them keeps no other, who does not see either what waits there.
        acme, bolt = (f"{tenant}.localhost:{run.port}" for tenant in ("acme", "bolt"))
        with closing(sqlite3.connect(run.data.parent / "halls-acme.sqlite", isolation_level=None)) as locked:
            locked.execute("BEGIN IMMEDIATE")
            headers = {"Host": acme, "Content-Type": "application/json", "Prefer": "respond-async"}
            asked = urllib.request.Request(f"{run.url}/halls/commands/let_in", b'{"name": "ada"}', headers)
            with urllib.request.urlopen(asked, timeout=30) as answer:
                command = f"{run.url}/commands/{answer.headers['Command-Id']}"
            wait_until(lambda: status_at(acme, f"{run.url}/readyz") == 503, "his lane is suspended")
            assert status_at(bolt, f"{run.url}/readyz") == 200
            assert status_at(acme, command) == 202
            assert status_at(bolt, command) == 404
        wait_until(lambda: status_at(acme, command) == 200, "his lane goes on")
    finally:
        if run.process is not None:
            run.process.kill()


def test_a_process_that_servers_are_named_to_says_so(seats: Run) -> None:
    refused = seats.second(AMQP_URL="amqp://guest:guest@127.0.0.1:5672/")
    assert refused.returncode == 2
    assert "AMQP_URL names a server" in refused.stderr
    assert APP_SETTING not in refused.stderr
    assert not (seats.folder / ".dev").exists()
