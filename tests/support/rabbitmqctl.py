"""What only the broker's own tools can do to it."""

import json
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from coordinator.dev.servers.programs import require
from coordinator.dev.servers.rabbitmq import RabbitMQ


def control_program() -> Path:
    return require("rabbitmq-server").resolve().parent / "rabbitmqctl"


def control_environment(broker: RabbitMQ) -> dict[str, str]:
    """With it rabbitmqctl speaks to a private broker."""
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **broker._environment()}


def evaluate(broker: RabbitMQ, expression: str) -> str:
    """Evaluate an Erlang expression in a private broker, and return what it prints."""
    return _printed(broker, "eval", expression)


def queue_lengths(broker: RabbitMQ) -> dict[str, int]:
    """The messages of each queue in vhost /, whether delivered or not."""
    listed = json.loads(_printed(broker, "list_queues", "name", "messages", "--formatter", "json"))
    # A queue whose process is on its way out says nothing.
    return {queue["name"]: queue["messages"] or 0 for queue in listed}


def _printed(broker: RabbitMQ, *command: str) -> str:
    done = subprocess.run(
        [control_program(), "--quiet", *command],
        env=control_environment(broker),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


Rights = tuple[str, str, str]
"""What may be configured, written to, and read from: regular expressions, as `rabbitmqctl set_permissions` has them."""


def set_users(broker: RabbitMQ, rights: Mapping[str, Rights]) -> None:
    """Users with these rights in vhost /, each with his name as his password, in the place of any so called before.

    All at once: each call of the tool costs more than a second of the processor.
    """
    steps = [_deletion(name) for name in rights]
    for name, given in rights.items():
        user, arguments = _binary(name), ", ".join(map(_binary, given))
        steps += [
            f'ok = rabbit_auth_backend_internal:add_user({user}, {user}, <<"test">>)',
            f'ok = rabbit_auth_backend_internal:set_permissions({user}, <<"/">>, {arguments}, <<"test">>)',
        ]
    evaluate(broker, ", ".join(steps) + ".")


def delete_users(broker: RabbitMQ, names: Iterable[str]) -> None:
    """Those that there are."""
    evaluate(broker, ", ".join(map(_deletion, names)) + ".")


def _deletion(name: str) -> str:
    return f'catch rabbit_auth_backend_internal:delete_user({_binary(name)}, <<"test">>)'


def _binary(text: str) -> str:
    escaped = text.replace("\\", "\\\\")
    return f'<<"{escaped}">>'


def close_connections(broker: RabbitMQ, rounds: int, pause_ms: int) -> None:
    """Close all connections of clients, so many times."""
    evaluate(
        broker,
        '[begin [catch rabbit_networking:close_connection(Pid, "test") || Pid <- rabbit_networking:connections()], '
        f"timer:sleep({pause_ms}) end || _ <- lists:seq(1, {rounds})], ok.",
    )
