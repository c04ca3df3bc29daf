"""Arguments of the command line that name an application, or its parts: looked up when a command is run."""

from collections.abc import Callable, Sequence

import click

from coordinator.registry import registry, use


class Named(click.ParamType):  # type: ignore[type-arg]  # generic from 8.4 on
    """One of some names. Raises ConfigurationError if the application cannot be found."""

    def __init__(self, name: str, names: Callable[[], Sequence[str]]) -> None:
        self.name = name
        self._names = names

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        names = self._names()
        if value not in names:
            self.fail(f"{value!r} is not one of {', '.join(map(repr, names))}.", param, ctx)
        return value


LANE = Named("lane", lambda: registry().names)
CALLING_SERVICE = Named("service", lambda: [service.name for service in registry().calling])
GATEWAY = Named("service", lambda: registry().gateway_names)


def _use(_ctx: click.Context, _param: click.Parameter, app: str | None) -> None:
    if app is not None:
        use(app)


APP = click.option(
    "--app",
    metavar="MODULE:NAME",
    expose_value=False,
    is_eager=True,
    callback=_use,
    help="The application whose services these are.  [default: COORDINATOR_APP, or the entry points of packages]",
)
