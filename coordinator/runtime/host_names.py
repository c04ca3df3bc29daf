"""Names of hosts by which a gateway may be asked, where it asks nobody who he is."""

from typing import Final
from urllib.parse import urlsplit

from coordinator.runtime.lists import shown_word

LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def host_of(address: str) -> str | None:
    """The host that an address names, such as that of `//localhost:8080`; None: it is no address, or names none."""
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def checked_hosts(texts: list[str]) -> list[str]:
    """Names of hosts, or their addresses, in small letters. Raises ValueError for what is none."""
    hosts = [text.lower().removeprefix("[").removesuffix("]") if ":" in text else text.lower() for text in texts]
    for text, host in zip(texts, hosts, strict=True):
        if host_of(f"//[{host}]" if ":" in host else f"//{host}") != host:
            raise ValueError(f"{shown_word(text)} is no name of a host, such as operations.internal, without a port")
    return hosts
