"""Arguments of the command line: names of an application and its parts, and texts and numbers with their limits.

Every argument has one of these types, of click's choices, or a function that reads it whole.
"""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from coordinator.registry import APP_SETTING, SERVICE_GROUP, registry, use
from coordinator.runtime.longest_time import SECONDS_MAX
from coordinator.runtime.paths import checked
from coordinator.service.commands import INTEGER_MAX
from coordinator.service.lane_names import RESERVED, service_of

F = TypeVar("F", bound=Callable[..., Any])

_SHOWN_CHARACTERS = 40
_WHOLE = re.compile(r"-?[0-9]{1,16}")
_DECIMAL = re.compile(r"[0-9]{1,16}(\.[0-9]{0,16})?")

_TYPE_CHARACTERS_MAX = 100
_SERVICE_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_TYPE = re.compile(r"[A-Za-z0-9_~-]+\.[A-Za-z0-9_.~-]+")


class Text(click.ParamType):  # type: ignore[type-arg]  # generic from 8.4 on
    """A text that can be sent and kept: bytes of a command line that are no UTF-8 are refused."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            value.encode()
        except UnicodeEncodeError:
            self.fail(f"{value!r} is not UTF-8.", param, ctx)
        return value


class Whole(click.IntRange):
    """A whole number in digits of ASCII; at most what every reader of JSON, and every database, has exactly."""

    def __init__(self, smallest: int, largest: int = INTEGER_MAX) -> None:
        super().__init__(smallest, largest)

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, str) and _WHOLE.fullmatch(value) is None:
            self.fail(f"{_shortened(value)} is not a whole number from {self.min} to {self.max}.", param, ctx)
        return int(super().convert(int(value), param, ctx))


class Seconds(click.FloatRange):
    """A time: finite, and no longer than a setting may have."""

    def __init__(self, smallest: float, largest: float = SECONDS_MAX) -> None:
        super().__init__(smallest, largest)

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, str) and _DECIMAL.fullmatch(value) is None:
            self.fail(f"{_shortened(value)} is not a number of seconds, such as 2.5.", param, ctx)
        return float(super().convert(float(value), param, ctx))


class Folder(click.Path):
    """The path of a folder, which need not be there yet; a text that can be shown and kept."""

    def __init__(self) -> None:
        super().__init__(file_okay=False, path_type=Path)

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        try:
            path = checked(Path(str(value)))
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)
        super().convert(path, param, ctx)
        return path


def _shortened(value: str) -> str:
    return repr(value if len(value) <= _SHOWN_CHARACTERS else f"{value[:_SHOWN_CHARACTERS]}…")


def _whose() -> str:
    """Who names the services that there are."""
    app = os.environ.get(APP_SETTING)
    if app:
        return f"which {APP_SETTING} ({app[:_SHOWN_CHARACTERS]}) names"
    return f"which installed packages name, by entry points of the group {SERVICE_GROUP}; no {APP_SETTING} is set"


class Named(click.ParamType):  # type: ignore[type-arg]  # generic from 8.4 on
    """One of some names. Raises ConfigurationError if the application cannot be found."""

    def __init__(self, name: str, names: Callable[[], Sequence[str]]) -> None:
        self.name = name
        self._names = names

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        names = self._names()
        if value not in names:
            self.fail(f"{value!r} is not one of {', '.join(map(repr, names))}, {_whose()}.", param, ctx)
        return value


class Announced(click.ParamType):  # type: ignore[type-arg]  # generic from 8.4 on
    """A command type, and perhaps a version: `seats.book`, `seats.book=2`. The service is the application's."""

    name = "TYPE[=VERSION]"

    def convert(
        self, value: str | tuple[str, int | None], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int | None]:
        if isinstance(value, tuple):
            return value
        kind, equals, version = value.partition("=")
        if _TYPE.fullmatch(kind) is None or len(kind) > _TYPE_CHARACTERS_MAX:
            self.fail(f"{_shortened(value)} is no command type, such as seats.book or seats.book=2.", param, ctx)
        _SERVICE.convert(kind.partition(".")[0], param, ctx)
        return kind, _VERSION.convert(version, param, ctx) if equals else None


class ServiceName(click.ParamType):  # type: ignore[type-arg]  # generic from 8.4 on
    """A name that a service could have, which need not be one of the application's."""

    name = "NAME"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if _SERVICE_NAME.fullmatch(value) is None:
            self.fail(f"{_shortened(value)} is not lower-case letters, digits and _, of at most 63.", param, ctx)
        if value in RESERVED:
            self.fail(f"{value} is kept for {RESERVED[value]}.", param, ctx)
        return value


class LanesOfProcess(click.ParamType):  # type: ignore[type-arg]  # generic from 8.4 on
    """A process with several lanes of the application: a name of its own, and which they are."""

    name = "NAME=LANE,LANE"

    def convert(
        self, value: str | tuple[str, tuple[str, ...]], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[str, ...]]:
        if isinstance(value, tuple):
            return value
        name, equals, lanes = value.partition("=")
        if not equals:
            self.fail(f"{_shortened(value)} is no name with lanes, such as main=seats,orders.", param, ctx)
        named = dict.fromkeys(LANE.convert(lane, param, ctx) for lane in lanes.split(","))
        return SERVICE_NAME.convert(name, param, ctx), tuple(named)


LANE = Named("lane", lambda: registry().names)
_SERVICE = Named("service", lambda: list(dict.fromkeys(map(service_of, registry().names))))
CALLING_SERVICE = Named("service", lambda: [service.lane for service in registry().calling])
GATEWAY = Named("service", lambda: registry().served_names)


def _use(_ctx: click.Context, _param: click.Parameter, app: str | None) -> None:
    if app is not None:
        use(app)


_VERSION = Whole(1)
ANNOUNCED = Announced()
SERVICE_NAME = ServiceName()
LANES_OF_PROCESS = LanesOfProcess()
TEXT = Text()
FOLDER = Folder()
APP = click.option(
    "--app",
    type=TEXT,
    metavar="MODULE:NAME",
    expose_value=False,
    is_eager=True,
    callback=_use,
    help="The application whose services these are.  [default: COORDINATOR_APP, or the entry points of packages]",
)
COORDINATORS = click.option(
    "--coordinator",
    "coordinators",
    type=TEXT,
    multiple=True,
    metavar="URL",
    help="Where a coordinator has its --metrics-port, beside those of OPERATIONS_COORDINATORS. May be given again.",
)


def listening_options(gateway: str, port: int) -> Callable[[F], F]:
    """--host, --port and --metrics-port of a process that serves HTTP.

    `gateway` begins the names of the variables that stand for them (`coordinator.runtime.misspelt.OPTIONS`).
    """

    def add(command: F) -> F:
        for option in reversed(
            (
                click.option(
                    "--host",
                    type=TEXT,
                    default="127.0.0.1",
                    show_default=True,
                    envvar=f"{gateway}_HOST",
                    show_envvar=True,
                    help="The address to listen on.",
                ),
                click.option(
                    "--port",
                    default=port,
                    type=Whole(0, 65535),
                    show_default=True,
                    envvar=f"{gateway}_PORT",
                    show_envvar=True,
                    help="The port to listen on; 0 takes a free one and logs it.",
                ),
                click.option(
                    "--metrics-port",
                    type=Whole(1, 65535),
                    envvar=f"{gateway}_METRICS_PORT",
                    show_envvar=True,
                    help="Serve /metrics there, and not at the port above.",
                ),
            )
        ):
            command = option(command)
        return command

    return add
