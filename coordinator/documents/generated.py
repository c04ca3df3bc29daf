"""The generated parts of docs/: settings in OPERATING.md, tables in API.md and HTTP.md, asyncapi.json, HTTP_API.md.

`python -m coordinator.documents.generated --write` writes them; a test fails when they are stale.
"""

from inspect import cleandoc
from pathlib import Path
from typing import Final, TypeAlias, get_args

import click
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from coordinator.access.settings import AccessSettings
from coordinator.accounts.management import BrokerAdminSettings
from coordinator.accounts.redis_acl import RedisAdminSettings
from coordinator.dev.plan import PORT_MAX, PlannedPort, plan_of
from coordinator.dev.settings import DevSettings
from coordinator.documents.asyncapi import document, to_json
from coordinator.documents.http_api import http_api
from coordinator.documents.unit_of_work import api
from coordinator.http.contract.problem_codes import PROBLEM_CODES
from coordinator.operations.settings import OperationsSettings
from coordinator.registry import registry
from coordinator.runtime.cache_settings import CacheSettings
from coordinator.runtime.loading import is_secret
from coordinator.runtime.schemes import schemes_of
from coordinator.runtime.settings import (
    BrokerSettings,
    DatabaseSettings,
    EffectSettings,
    GatewaySettings,
    IngressSettings,
    LaneSettings,
    ReaderSettings,
    TelemetrySettings,
)
from coordinator.runtime.trace_settings import TraceSettings
from coordinator.service.lane_names import settings_prefix

DOCS: Final = Path(__file__).parents[2] / "docs"
BEGIN: Final = "<!-- settings: made by `python -m coordinator.documents.generated --write` -->"
END: Final = "<!-- end of settings -->"
BEGIN_CODES: Final = "<!-- codes: made by `python -m coordinator.documents.generated --write` -->"
END_CODES: Final = "<!-- end of codes -->"

SECRET: Final = " †"  # noqa: S105  # a mark
"""The mark of a setting whose value may stand in a file; of a code, that it is the application's own."""

_Groups: TypeAlias = tuple[tuple[type[BaseSettings], str], ...]

_UNITS: Final = {"s": "s", "ms": "ms", "bytes": "bytes"}
_BOUNDS: Final = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))


def groups() -> _Groups:
    """Every group of settings there is, the application's own too, and who reads it."""
    known = registry()
    *others, last = (f"`{settings_prefix(name)[:-1]}`" for name in known.names)
    prefixes = " or ".join([", ".join(others), last] if others else [last])
    cached = ", ".join(service.name for service in known.services if service.projection is not None)
    return (
        (BrokerSettings, "coordinators and gateways"),
        (BrokerAdminSettings, "`coordinator broker-accounts`"),
        (RedisAdminSettings, "`coordinator broker-accounts`"),
        (LaneSettings, "coordinators"),
        (EffectSettings, "effect workers"),
        (IngressSettings, "the ingress; INGRESS_ACCOUNTS also `coordinator broker-accounts`"),
        (DatabaseSettings, f"coordinators and migrate; `<SERVICE>` is {prefixes}"),
        (ReaderSettings, "gateways"),
        (CacheSettings, f"coordinator and gateways of {cached}"),
        (GatewaySettings, "gateways and the operations gateway"),
        (AccessSettings, "gateways and the operations gateway"),
        (OperationsSettings, "the operations gateway"),
        *known.settings,
        (TelemetrySettings, "all"),
        (TraceSettings, "gateways, coordinators and effect workers: OpenTelemetry's own variables"),
        (DevSettings, "`coordinator dev`"),
    )


def settings_tables() -> str:
    """One Markdown table for each group of settings; the last goes on with the ports of the services."""
    tables = "\n\n".join(_table(group, readers) for group, readers in groups())
    return "\n".join([tables, *(_port_row(port) for port in dev_ports())])


def dev_ports() -> tuple[PlannedPort, ...]:
    """The ports of the application's services in a run of `coordinator dev`, by default."""
    settings = DevSettings.model_construct(host=DevSettings.model_fields["host"].default)
    return tuple(plan_of(registry(), settings, Path(), {}).ports)


def gateway_ports() -> dict[str, int]:
    """Those of gateways, by the names of their services."""
    numbers = {port.setting: port.number for port in dev_ports()}
    return {name: numbers[f"DEV_{settings_prefix(name)}PORT"] for name in registry().gateway_names}


def operating(text: str) -> str:
    """OPERATING.md with its settings made again. Raises ValueError where the markers are missing."""
    return _between(text, BEGIN, END, settings_tables(), "OPERATING.md")


def http(text: str) -> str:
    """HTTP.md with its table of codes made again. Raises ValueError where the markers are missing."""
    return _between(text, BEGIN_CODES, END_CODES, codes_table(), "HTTP.md")


def codes_table() -> str:
    """The codes of the framework and of the application's gateways, which have a mark."""
    own = {problem.code: problem for name in registry().gateway_names for problem in registry().gateway(name).problems}
    rows = [*((problem, "") for problem in PROBLEM_CODES), *((problem, SECRET) for problem in own.values())]
    lines = ["| code | status | of | meaning |", "| --- | --- | --- | --- |"]
    for problem, mark in sorted(rows, key=lambda row: row[0].code):
        statuses = ", ".join(map(str, problem.statuses))
        lines.append(f"| `{problem.code}`{mark} | {statuses} | {', '.join(problem.of)} | {problem.meaning} |")
    return "\n".join(lines)


def _between(text: str, first: str, last: str, made: str, name: str) -> str:
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise ValueError(f"{name} needs the two lines {first} and {last}")
    return f"{before}{begin}\n\n{made}\n\n{end}{after}"


def generated() -> dict[Path, str]:
    """The files that are made, or made in part, and what they should hold."""
    path = DOCS / "OPERATING.md"
    return {
        path: operating(path.read_text()),
        DOCS / "HTTP.md": http((DOCS / "HTTP.md").read_text()),
        DOCS / "API.md": api((DOCS / "API.md").read_text()),
        DOCS / "asyncapi.json": to_json(document(registry().services)),
        DOCS / "HTTP_API.md": http_api(registry(), gateway_ports()),
    }


def _table(group: type[BaseSettings], readers: str) -> str:
    summary = cleandoc(group.__doc__ or "").partition("\n")[0].partition(". ")[0]
    prefix = str(group.model_config.get("env_prefix", "")) or "<SERVICE>_"
    lines = [
        f"**{summary.rstrip('.')}** ({readers})",
        "",
        "| setting | default | limits | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for name, field in group.model_fields.items():
        shown = f"`{prefix}{name.upper()}`{SECRET if is_secret(field) else ''}"
        cells = (shown, _default(name, field), _limits(field), field.description or "")
        lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join(lines)


def _port_row(port: PlannedPort) -> str:
    return f"| `{port.setting}` | `{port.number}` | ≥ 1, ≤ {PORT_MAX} | {port.title[0].upper()}{port.title[1:]}. |"


def _default(name: str, field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    if field.default is None:
        return "none"
    unit = next((_UNITS[part] for part in name.split("_") if part in _UNITS), "")
    return f"`{field.default}` {unit}".rstrip()


def _limits(field: FieldInfo) -> str:
    choices = [str(choice) for choice in get_args(field.annotation) if isinstance(choice, str)]
    if choices:
        return ", ".join(choices)
    limits = []
    for constraint in field.metadata:
        limits += [f"{sign} {getattr(constraint, name)}" for name, sign in _BOUNDS if hasattr(constraint, name)]
        if getattr(constraint, "pattern", None):
            limits.append(_schemes(constraint.pattern))
    return ", ".join(limits)


def _schemes(pattern: str) -> str:
    """A URL's pattern in words: `^amqps?://` is amqp://, amqps://."""
    return ", ".join(schemes_of(pattern)) or f"<code>{pattern}</code>"


@click.command()
@click.option("--write", is_flag=True, help="Write the files; without it, only name those that are stale.")
def main(*, write: bool) -> None:
    """Make the generated parts of docs/."""
    stale = [path for path, text in generated().items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if write:
            path.write_text(generated()[path])
        click.echo(f"{path.relative_to(DOCS.parent)} {'written' if write else 'is stale'}")
    if stale and not write:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
