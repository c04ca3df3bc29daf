"""An engine in this machine's network: one at a time, and what it leaves there when it stops is removed."""

import errno
import fcntl
import re
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from coordinator.service.errors import ConfigurationError

_FORWARDING: Final = (Path("/proc/sys/net/ipv4/ip_forward"), Path("/proc/sys/net/ipv6/conf/all/forwarding"))
_LINKS: Final = Path("/sys/class/net")
_FAMILIES: Final = ("iptables", "ip6tables")
_SET_FLAGS: Final = 0x8914
_DELETE_BRIDGE: Final = 0x89A1
_ENGINE: Final = "write-coordinator-engine"


@contextmanager
def alone_in_this_network(name: str = _ENGINE) -> Iterator[None]:
    """Two engines give the same addresses to their containers, and the first that stops removes the other's bridges.

    Raises ConfigurationError if another run has one in this network, in whatever folder.
    """
    with socket.socket(socket.AF_UNIX) as held:
        try:
            held.bind(f"\0{name}")  # a name that is no file: it is this network's, and goes with its process
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise ConfigurationError("another run has an engine in this network: wait until it has ended") from None
        yield


@contextmanager
def network_as_before(root: Path) -> Iterator[None]:
    """At the end, what is new of rules, bridges and forwarding is gone. `root` has the programs that know the rules."""
    rules = {family: saved for family in _FAMILIES if (saved := _rules(root, family)) is not None}
    forwarding = {path: path.read_text() for path in _FORWARDING if path.exists()}
    bridges = _bridges()
    try:
        yield
    finally:
        for family, before in rules.items():
            removal = what_removes_the_new(before, _rules(root, family) or "")
            _run(root, f"{family}-restore", "--noflush", given=removal).check_returncode()
        for bridge in _bridges() - bridges:
            _delete_bridge(bridge)
        for path, value in forwarding.items():
            path.write_text(value)


def what_removes_the_new(before: str, after: str) -> str:
    """Both are what iptables-save prints. The result is for `iptables-restore --noflush`; what was removed stays so."""
    had = _tables(before)
    lines = []
    for table, (policies, rules) in _tables(after).items():
        policies_before, rules_before = had.get(table, ({}, []))
        chains = [name for name, policy in policies.items() if policy == "-" and name not in policies_before]
        changed = {
            name: policies_before.get(name, "ACCEPT")
            for name, policy in policies.items()
            if policy not in ("-", policies_before.get(name, "ACCEPT"))
        }
        lines += [f"*{table}", *(f":{name} {policy} [0:0]" for name, policy in changed.items())]
        lines += [f"-D {rule}" for rule in rules if rule not in rules_before and rule.partition(" ")[0] not in chains]
        lines += [f"{action} {chain}" for action in ("-F", "-X") for chain in chains]
        lines.append("COMMIT")
    return "".join(f"{line}\n" for line in lines)


def _tables(saved: str) -> dict[str, tuple[dict[str, str], list[str]]]:
    """Each table's chains with their policies ('-' for a chain of somebody's own), and its rules."""
    return {
        name: (
            dict(re.findall(r"^:(\S+) (\S+)", body, re.MULTILINE)),
            re.findall(r"^-A (.*)$", body, re.MULTILINE),
        )
        for name, body in re.findall(r"^\*(\S+)\n(.*?)^COMMIT$", saved, re.MULTILINE | re.DOTALL)
    }


def _rules(root: Path, family: str) -> str | None:
    """None: the kernel has no such family."""
    saved = _run(root, f"{family}-save")
    return saved.stdout if saved.returncode == 0 else None


def _run(root: Path, *argv: str, given: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["chroot", str(root), *argv], input=given, capture_output=True, text=True, check=False)


def _bridges() -> set[str]:
    return {link.name for link in _LINKS.iterdir() if (link / "bridge").exists()}


def _delete_bridge(name: str) -> None:
    with socket.socket(socket.AF_INET) as any_socket:
        down = struct.pack("16sH14x", name.encode(), 0)
        fcntl.ioctl(any_socket, _SET_FLAGS, down)
        fcntl.ioctl(any_socket, _DELETE_BRIDGE, name.encode() + b"\0")
