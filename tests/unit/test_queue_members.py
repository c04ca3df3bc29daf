"""What an operator is told of the members of a lane's queue, and how one is added."""

import pytest
from click.testing import CliRunner

from coordinator.operate.grow import grow
from coordinator.operate.queue_members import members_of

NODES = ["rabbit@a", "rabbit@b", "rabbit@c"]


@pytest.mark.parametrize(
    ("online", "said"),
    [
        (NODES, "led by rabbit@a, 3 of 3 members online (a majority)"),
        (NODES[:2], "led by rabbit@a, 2 of 3 members online (a majority); away: rabbit@c"),
        (NODES[:1], "led by rabbit@a, 1 of 3 members online (NO MAJORITY); away: rabbit@b, rabbit@c"),
    ],
)
def test_a_majority_is_more_than_half_of_all_members(online: list[str], said: str) -> None:
    assert str(members_of({"leader": "rabbit@a", "members": NODES[::-1], "online": online})) == said


def test_what_the_management_does_not_know_yet_is_no_majority() -> None:
    assert str(members_of({})) == "led by none, 0 of 0 members online (NO MAJORITY)"


def test_the_line_that_grows_queues_is_safe_for_a_shell_and_for_erlang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMQP_URL", "amqp://u:p@a,b/shop.%27x")
    for node in ("rabbit@c; true", "-n@c", "rabbit@c\n"):
        refused = CliRunner().invoke(grow, ["--", node])
        assert (refused.exit_code, "such as rabbit@host" in refused.stderr) == (2, True), node
    ran = CliRunner().invoke(grow, ["rabbit@c"])
    assert ran.output == (
        "rabbitmq-queues grow rabbit@c all --vhost-pattern '^shop\\.\\'\"'\"'x$' "
        "--queue-pattern '^(writes|effects)\\.'\n"
    )
