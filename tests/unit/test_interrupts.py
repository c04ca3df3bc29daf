"""Ctrl-C at any line of a command: a word and 130, or once it is done its own status. There is no traceback."""

import os
import subprocess
import sys
from typing import Final

import pytest

BEGIN: Final = "import atexit, os, signal, sys, threading\n"
END: Final = "sys.argv = ['coordinator', 'schemas', 'users']\nfrom write_coordinator_start import main\nmain()\n"
IMPORTING: Final = """
class Finder:
    def find_spec(self, name, *_):
        if name == {name!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
"""
LEFT: Final = {
    "Python's functions of the end": "atexit.register(os.kill, os.getpid(), signal.SIGINT)\n",
    "the end of its threads": (
        "def interrupt():\n"
        "    threading.main_thread().join()\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "threading.Thread(target=interrupt).start()\n"
    ),
}


def ended(code: str) -> tuple[int, str, str]:
    environment = os.environ | {"COORDINATOR_APP": "gateways.app:APP"}
    command = [sys.executable, "-c", BEGIN + code + END]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout, ran.stderr


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("coordinator", "interrupted: nothing was done"),
        ("click", "interrupted: nothing was done"),
        ("coordinator.service.json_schemas", "interrupted: what was sent is not taken back"),
    ],
)
def test_a_command_that_still_imports_ends_in_a_word(name: str, words: str) -> None:
    assert ended(IMPORTING.format(name=name)) == (130, "", f"\ncoordinator: {words}\n")


@pytest.mark.parametrize("left", LEFT)
def test_a_command_that_is_done_keeps_its_words_and_its_status(left: str) -> None:
    status, said, errors = ended(LEFT[left])
    assert (status, errors) == (0, "")
    assert said.startswith("{")
    assert said.endswith("}\n")


def test_who_has_interrupts_ignored_has_them_so() -> None:
    ignoring = "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    status, said, errors = ended(ignoring + IMPORTING.format(name="click"))
    assert (status, said[:1], errors) == (0, "{", "")
