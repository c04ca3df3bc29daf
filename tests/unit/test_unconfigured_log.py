"""A program that issues commands has its standard output for itself."""

import subprocess
import sys

import pytest

LANE = """

import structlog
{before}
from coordinator.writing import InProcessWrites
from coordinator.worker.inprocess import log
{after}
log.info("lane_taken_over", lane="seats")
print(994)
"""


@pytest.mark.parametrize(
    ("before", "after", "stdout", "stderr"),
    [
        ("", "", ["994"], ["lane_taken_over"]),
        # What the program configures holds, whenever it does.
        ("structlog.configure(processors=[lambda *_: 'mine'])", "", ["mine", "994"], []),
        ("", "structlog.configure(processors=[lambda *_: 'mine'], logger_factory=None)", ["994"], ["mine"]),
    ],
    ids=["none", "before", "after"],
)
def test_log_lines_go_to_standard_error_where_the_program_says_nothing(
    before: str, after: str, stdout: list[str], stderr: list[str]
) -> None:
    script = LANE.format(before=before, after=after)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.splitlines() == stdout
    assert all(word in run.stderr for word in stderr)


def test_a_program_that_chooses_structlog_s_plain_loggers_has_all_of_their_methods() -> None:
    chosen = "structlog.configure(wrapper_class=structlog.BoundLogger)\nstructlog.get_logger().{}('mine')"
    names = ["msg", "log", "debug", "info", "warn", "warning", "fatal", "failure", "err", "error", "critical"]
    script = LANE.format(before="", after="\n".join(chosen.format(name) for name in names))
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert run.stderr.count("mine") == len(names)
