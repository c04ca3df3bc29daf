"""Ctrl-C, SIGTERM or SIGHUP at any line of a command: a word and the end by it, or once it is done its own status.

There is no traceback.
"""

import os
import signal
import subprocess
import sys
import time
from typing import Final

import pytest
from pika.exceptions import ConnectionClosedByBroker

from coordinator.operate import broker_connection
from coordinator.operate.repeating import until_interrupted
from coordinator.runtime.settings import BrokerSettings
from write_coordinator_start import Stopped

BEGIN: Final = "import atexit, os, signal, sys, threading\n"
END: Final = "sys.argv = ['coordinator', 'schemas', 'users']\nfrom write_coordinator_start import main\nmain()\n"
IMPORTING: Final = """
class Finder:
    def find_spec(self, name, *_):
        if name == {name!r}:
            os.kill(os.getpid(), signal.{number})

sys.meta_path.insert(0, Finder())
"""
LEFT: Final = {
    "Python's functions of the end": "atexit.register(os.kill, os.getpid(), signal.{number})\n",
    "the end of its threads": (
        "def interrupt():\n"
        "    threading.main_thread().join()\n"
        "    os.kill(os.getpid(), signal.{number})\n"
        "threading.Thread(target=interrupt).start()\n"
    ),
}


SIGNALS: Final = ("SIGINT", "SIGTERM", "SIGHUP")
# Tests that were started by `nohup`, or with `&`, would hand on that they are ignored.
AS_AT_THE_START: Final = (
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "signal.signal(signal.SIGTERM, signal.SIG_DFL)\n"
    "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
)


def by(number: str) -> int:
    """The status of what ends by this signal: a shell shows 128 and its number of each."""
    return 128 + signal.SIGINT if number == "SIGINT" else -signal.Signals[number]


def ended(code: str) -> tuple[int, str, str]:
    environment = os.environ | {"COORDINATOR_APP": "gateways.app:APP"}
    command = [sys.executable, "-c", BEGIN + AS_AT_THE_START + code + END]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout, ran.stderr


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("coordinator", "interrupted: nothing was done"),
        ("click", "interrupted: nothing was done"),
        ("coordinator.service.json_schemas", "interrupted: what was sent is not taken back"),
    ],
)
def test_a_command_that_still_imports_ends_in_a_word(name: str, words: str, number: str) -> None:
    assert ended(IMPORTING.format(name=name, number=number)) == (by(number), "", f"\ncoordinator: {words}\n")


@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP"])
def test_one_that_is_stopped_waits_for_no_thread(number: str) -> None:
    """Such as one that asks a database which stands still: `timeout` sends one signal alone."""
    hanging = "threading.Thread(target=threading.Event().wait, args=(20.0,)).start()\n"
    began_s = time.monotonic()
    status, _, errors = ended(hanging + IMPORTING.format(name="coordinator.service.json_schemas", number=number))
    assert time.monotonic() - began_s < 15.0
    assert (status, errors) == (
        by(number),
        "\ncoordinator: interrupted: what was sent is not taken back\n",
    )


def test_what_is_left_by_ctrl_c_is_ended_by_other_signals() -> None:
    with pytest.raises(Stopped), until_interrupted():
        raise Stopped(signal.SIGTERM)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("left", LEFT)
def test_a_command_that_is_done_keeps_its_words_and_its_status(left: str, number: str) -> None:
    status, said, errors = ended(LEFT[left].format(number=number))
    assert (status, errors) == (0, "")
    assert said.startswith("{")
    assert said.endswith("}\n")


@pytest.mark.parametrize("number", SIGNALS)
def test_who_has_a_signal_ignored_has_it_so(number: str) -> None:
    ignoring = f"signal.signal(signal.{number}, signal.SIG_IGN)\n"
    status, said, errors = ended(ignoring + IMPORTING.format(name="click", number=number))
    assert (status, said[:1], errors) == (0, "{", "")


def test_what_drivers_log_of_an_interrupted_call_is_not_said() -> None:
    logging_it = (
        "from coordinator.operate.output import quiet\n"
        "import logging\n"
        "quiet()\n"
        "logging.getLogger('sqlalchemy.pool').error('Exception closing connection', exc_info=KeyboardInterrupt())\n"
        "logging.getLogger('psycopg').warning('error ignored in rollback')\n"
    )
    status, said, errors = ended(logging_it)
    assert (status, said[:1], errors) == (0, "{", "")


def test_a_broker_that_refuses_the_end_of_a_broken_call_takes_no_signals_place(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        is_open = True

        def __init__(self, _: object) -> None:
            pass

        def close(self) -> None:
            raise ConnectionClosedByBroker(504, "CHANNEL_ERROR - expected 'channel.open'")

    monkeypatch.setattr(broker_connection, "BlockingConnection", Broken)
    with pytest.raises(Stopped), broker_connection.connected(BrokerSettings(url="amqp://a:a@127.0.0.1:1/")):
        raise Stopped(signal.SIGTERM)
