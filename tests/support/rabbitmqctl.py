"""What only the broker's own tools can do to it."""

import subprocess

from coordinator.dev.servers.programs import require
from coordinator.dev.servers.rabbitmq import RabbitMQ


def evaluate(broker: RabbitMQ, expression: str) -> str:
    """Evaluate an Erlang expression in a private broker, and return what it prints."""
    program = require("rabbitmq-server").resolve().parent / "rabbitmqctl"
    done = subprocess.run(
        [program, "--quiet", "eval", expression],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **broker._environment()},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def add_user(broker: RabbitMQ, name: str, configure: str, write: str, read: str) -> None:
    """A user with these rights in vhost /, whose password is his name."""
    rights = ", ".join(f'<<"{right}">>' for right in (configure, write, read))
    evaluate(
        broker,
        f'rabbit_auth_backend_internal:add_user(<<"{name}">>, <<"{name}">>, <<"test">>), '
        f'rabbit_auth_backend_internal:set_permissions(<<"{name}">>, <<"/">>, {rights}, <<"test">>).',
    )


def close_connections(broker: RabbitMQ, rounds: int, pause_ms: int) -> None:
    """Close all connections of clients, so many times."""
    evaluate(
        broker,
        '[begin [catch rabbit_networking:close_connection(Pid, "test") || Pid <- rabbit_networking:connections()], '
        f"timer:sleep({pause_ms}) end || _ <- lists:seq(1, {rounds})], ok.",
    )
