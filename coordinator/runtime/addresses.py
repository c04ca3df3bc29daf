"""Addresses of databases, brokers and caches: the one place that takes them apart, without any driver.

Drivers read the same text differently: an unescaped %, a + in an option, several hosts. So no driver is given a
text: each kind turns an `Address` into its driver's arguments, and refuses by name every option without one.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Final
from urllib.parse import unquote

from msgspec import Struct
from msgspec.structs import replace

from coordinator.runtime.schemes import OWN_WORDS, begins_wrongly
from coordinator.service.errors import ConfigurationError

FOLDERS: Final = {
    "postgresql": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
    "mongodb": "mongodb",
    "sqlite": "sqlite",
}
"""By the scheme of an address: the folder of `coordinator/stores` in which its kind of database is."""

_BY_SERVICE_RECORD: Final = {"mongodb+srv": "mongodb"}
"""The same, where the hosts stand in the DNS."""

WITHOUT_SERVER: Final = frozenset({"sqlite"})
"""Those of these schemes that name a file, which no process of another machine can read."""

KNOWN_SCHEMES: Final = frozenset(
    {*FOLDERS, *(f"{scheme}+srv" for scheme in FOLDERS), "memory", "http", "https"}
    | {"amqp", "amqps", "redis", "rediss", "redis+sentinel"}
    # What others call some of these.
    | OWN_WORDS.keys()
)
"""Those that an error may show: another text that stands before :// may be a part of a password."""

PORT_MAX: Final = 65_535
ENCODE: Final = "must be written as %XX: @ as %40, / as %2F, # as %23, ? as %3F, % as %25, a space as %20"

_SCHEME: Final = re.compile(r"([a-z][a-z0-9.-]*(?:\+[a-z]+)?)://")
_DIGITS: Final = 10
"""With so many, a number of a database is none of Redis's, which have 31 bits."""
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})?")
_HOST: Final = re.compile(r"[\w.-]+", re.UNICODE)
_IPV6: Final = re.compile(r"[0-9A-Fa-f:.]+(%[\w.-]+)?")

_SECOND: Final = re.compile(r",[a-z][a-z0-9.+-]*://")
_VISIBLE: Final = re.compile(r"[!-~]+")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CREDENTIALS: Final = re.compile(r"(?:([A-Za-z][A-Za-z0-9.+-]{0,31}://)|(?<!\S)(?=[^\s@]*:))\S*@")
_QUERY: Final = re.compile(r"(://[^\s?#]*)[?#]\S*")


def without_credentials(text: str) -> str:
    """A text as a log or an error may have it, in which there may be addresses: each without its user, password and
    options, of which any may be a secret."""
    return _QUERY.sub(r"\1?…", _CREDENTIALS.sub(r"\1…@", text))


class Secret:
    """A text that no repr, log or error shows."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for a driver only."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other.reveal() == self._text

    def __hash__(self) -> int:
        return hash(self._text)


class Host(Struct, frozen=True):
    """A server; for PostgreSQL also the folder of a socket."""

    name: str
    port: int | None = None

    def __str__(self) -> str:
        name = f"[{self.name}]" if ":" in self.name else self.name
        return name if self.port is None else f"{name}:{self.port}"


class Address(Struct, frozen=True, kw_only=True):
    """The parts of an address, unescaped."""

    scheme: str
    hosts: tuple[Host, ...] = ()
    user: str | None = None
    password: Secret | None = None
    database: str = ""
    """The name of a database; a file's path; a broker's vhost; the number of a cache's database."""
    options: dict[str, Secret] = {}
    """Some of them are secrets."""

    @property
    def folder(self) -> str:
        """The folder of `coordinator/stores` with its kind of database. Raises ConfigurationError if there is none."""
        folder = FOLDERS.get(self.scheme) or _BY_SERVICE_RECORD.get(self.scheme)
        if folder is None:
            raise _no_kind(self.scheme)
        return folder

    @property
    def plain_password(self) -> str | None:
        """For the driver."""
        return None if self.password is None else self.password.reveal()

    def option(self, name: str) -> str | None:
        """An option's value, or None without such an option."""
        value = self.options.get(name)
        return None if value is None else value.reveal()

    @property
    def number(self) -> int:
        """The number of a Redis's database. Raises ConfigurationError for what is none."""
        given = self.database or "0"
        if not (given.isascii() and given.isdecimal() and len(given) < _DIGITS):
            raise ConfigurationError("behind the host it must have the number of a database, such as /0, or nothing")
        return int(given)

    def one_host(self) -> Host | None:
        """The host, if any. Raises ConfigurationError if there are several."""
        if len(self.hosts) > 1:
            raise ConfigurationError("it has several hosts, and must have one")
        return self.hosts[0] if self.hosts else None

    def by_host(self) -> Sequence["Address"]:
        """The same address for each of its hosts, if any; else the address."""
        return [replace(self, hosts=(host,)) for host in self.hosts] or [self]

    def check_options(self, supported: Collection[str], ours: Collection[str] = ()) -> None:
        """Raise ConfigurationError that names the first option which is not among those supported.

        `ours` are those that a process of ours sets itself, so that the address's value would be ignored in silence.
        """
        for name in self.options:
            if name in ours:
                raise ConfigurationError(f"its option {name!r} is one that the coordinator sets itself: leave it out")
            if name not in supported:
                known = f"supported are {', '.join(supported)}" if supported else "it takes no options"
                raise ConfigurationError(f"its option {name!r} is not supported: {known}")

    def __repr__(self) -> str:
        user = "" if self.user is None else f"{self.user}@"
        options = f"?{'&'.join(f'{name}=…' for name in self.options)}" if self.options else ""
        return f"<{self.scheme}://{user}{','.join(map(str, self.hosts))}/{self.database}{options}>"

    __str__ = __repr__


@contextmanager
def address_of(setting: str) -> Iterator[None]:
    """Add the setting's name to every error about an address."""
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"{setting}: {error}") from None


def scheme_of(url: str) -> str:
    """The kind of database that an address names: `postgresql`, `mysql`, `mongodb`, …"""
    return url.partition("://")[0].partition("+")[0]


def parse_address(text: str) -> Address:
    """Take an address apart.

    For a file everything behind `:///` is its path as it is, unescaped. For a server each part is escaped as in
    RFC 3986, and strictly: a text that two readers could understand in two ways is refused.

    Raises ConfigurationError, which shows only an option's name of the address: a part that looks like a host may be
    a part of a password.
    """
    if _CONTROL.search(text):
        raise ConfigurationError("it must hold no control characters, such as a line's end")
    scheme = _SCHEME.match(text)
    if scheme is None:
        raise ConfigurationError("it must begin with a scheme, such as postgresql://")
    rest = text[scheme.end() :]
    if OWN_WORDS.get(scheme[1]) in WITHOUT_SERVER:
        # What follows is a path, and no host.
        raise _no_kind(scheme[1])
    if scheme[1] in WITHOUT_SERVER:
        return _file(scheme[1], rest)
    return _server(scheme[1], rest)


def _no_kind(scheme: str) -> ConfigurationError:
    given = repr(scheme) if scheme in KNOWN_SCHEMES else "its scheme"
    wrong = begins_wrongly(tuple(f"{each}://" for each in FOLDERS), scheme)
    return ConfigurationError(f"no kind of database for {given}: {wrong}")


def _file(scheme: str, rest: str) -> Address:
    if not rest.startswith("/"):
        raise ConfigurationError(f"a file's address begins with {scheme}:///, and {scheme}://// if its path has a root")
    if not rest[1:]:
        raise ConfigurationError("it names no file")
    return Address(scheme=scheme, database=rest[1:])


def _server(scheme: str, rest: str) -> Address:
    if any(character.isspace() for character in rest) or "#" in rest:
        raise ConfigurationError(f"in user, password and names these {ENCODE}")
    before, _, query = rest.partition("?")
    if _SECOND.search(before):
        raise ConfigurationError(
            "a second address begins behind a comma: several hosts share one scheme, user, password and name, as in "
            f"{scheme if scheme in KNOWN_SCHEMES else 'SCHEME'}://USER:PASSWORD@HOST:PORT,HOST:PORT/NAME"
        )
    authority, _, path = before.partition("/")
    credentials, at, hosts = authority.rpartition("@")
    if "@" in credentials + path + query or "/" in path:
        raise ConfigurationError(f"in user, password and names these {ENCODE}")
    user: str | None = None
    password: Secret | None = None
    if at:
        name, colon, secret = credentials.partition(":")
        user = _decoded(name, "user") or None
        password = Secret(_decoded(secret, "password")) if colon else None
    return Address(
        scheme=scheme,
        hosts=tuple(_host(each) for each in hosts.split(",")) if hosts else (),
        user=user,
        password=password,
        database=_decoded(path, "name"),
        options=_options(query),
    )


def _host(text: str) -> Host:
    if text.startswith("["):
        name, bracket, port = text[1:].partition("]")
        is_one = bool(bracket) and _IPV6.fullmatch(name) and port[:1] in ("", ":")
        port = port[1:]
    else:
        name, _, port = text.partition(":")
        name = _decoded(name, "host")
        is_one = bool(_HOST.fullmatch(name)) or name.startswith("/")
        if is_one and not name.startswith("/") and not is_host_name(name):
            raise ConfigurationError("its host has a part that is empty or longer than 63 letters")
    if not is_one or (text.endswith(":") and not port):
        raise ConfigurationError(f"it must have one host and, if any, one port; in user and password these {ENCODE}")
    return Host(name, port_of(port) if port else None)


def is_host_name(name: str) -> bool:
    """Whether it can be looked up: a resolver raises for what is none, and no OSError."""
    try:
        return bool(_VISIBLE.fullmatch(name.encode("idna").decode()))
    except UnicodeError:
        return False


def port_of(text: str) -> int:
    """A port's number. Raises ConfigurationError."""
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= PORT_MAX):
        raise ConfigurationError(
            f"its port is no number from 1 to {PORT_MAX}; in user and password these {ENCODE}, and : as %3A"
        )
    return int(text)


def _options(query: str) -> dict[str, Secret]:
    found: dict[str, Secret] = {}
    for each in query.split("&") if query else []:
        name, equals, value = each.partition("=")
        name = _decoded(name, "option")
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or not equals:
            raise ConfigurationError(
                f"behind the ? it must have options as name=value; in user and password these {ENCODE}"
            )
        if name in found:
            raise ConfigurationError(f"its option {name!r} is there twice")
        if "+" in value:
            raise ConfigurationError(f"its option {name!r} has a +: write %2B, or %20 for a space")
        found[name] = Secret(_decoded(value, f"option {name!r}"))
    return found


def _decoded(text: str, part: str) -> str:
    if any(escape[1] is None for escape in _ESCAPE.finditer(text)):
        raise ConfigurationError(f"a % in its {part} must be written as %25")
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeError:
        raise ConfigurationError(f"the bytes of its {part} are not UTF-8") from None
    if _CONTROL.search(decoded):
        raise ConfigurationError(f"its {part} must hold no control characters, such as a line's end")
    return decoded
