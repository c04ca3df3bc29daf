"""The commands of `rabbitmqctl` that make accounts, for whoever administers RabbitMQ."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from coordinator.service.text import in_quotes
from coordinator.transports.rabbitmq.rights import BrokerAccount


def lines_of(accounts: Sequence[BrokerAccount], vhost: str, passwords: Mapping[str, Path]) -> Iterator[str]:
    """The lines of a shell's script. `passwords` are files of them, by account; without one a person is asked.

    No line has a password, so no list of processes shows one. Where all passwords are files, a shell may read the
    script as its input: no command takes the rest of that for its own.
    """
    for account in accounts:
        name = shlex.quote(account.name)
        yield f"# {account.whose}"
        kept = passwords.get(account.name)
        source = "    # type the password, and the line's end" if kept is None else f" < {shlex.quote(str(kept))}"
        yield f"rabbitmqctl add_user {name}{source}"
        nothing = "" if kept is None else " < /dev/null"
        yield f"{set_permissions(account, vhost)}{nothing}"
        if account.limits:
            limits = shlex.quote(msgspec.json.encode(account.limits).decode())
            yield f"rabbitmqctl set_user_limits {name} {limits}{nothing}"


def set_permissions(account: BrokerAccount, vhost: str) -> str:
    """The line that gives an account its rights, in the place of those that it had."""
    rights = account.rights
    patterns = " ".join(map(in_quotes, (rights.configure, rights.write, rights.read)))
    return f"rabbitmqctl set_permissions -p {shlex.quote(vhost)} {shlex.quote(account.name)} {patterns}"
