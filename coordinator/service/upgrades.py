"""Upgrades: older arguments of a command become those of its present version, one version at a time.

A command keeps the arguments and the version with which it was sent, wherever it waits: in a queue, in an outbox, as a
dead letter, behind its key. They are upgraded each time they are read, by the process that reads them. So a command
that was sent before an upgrade and repeated after it is the same command.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct

from coordinator.service.commands import C, ClassFailed, Command, argument_object, parse
from coordinator.service.descriptions import described
from coordinator.service.errors import InvalidCommand

Arguments: TypeAlias = dict[str, Any]
"""A command's arguments as a JSON object."""
_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")
UPGRADED_BYTES_MAX: Final = 1 << 20
"""What an upgrade may make, as JSON text: as much as a message has. Of larger ones, where a lane takes them, it is
twice what was sent, since an upgrade may give longer names to what it is given."""
UNKNOWN_VERSION: Final = "unknown_command_version"
_ERROR_CHARACTERS_MAX: Final = 500


class UpgradeFailed(InvalidCommand):
    """Raised where an upgrade raises, or returns what are no arguments. Its text is for operators (`unshown`)."""


class Upgrade(Struct, frozen=True):
    """Makes arguments of `from_version` of a command into those of the version after it.

    `change` is a pure function of the arguments. It may change the object that it is given, which is its own.
    `arguments` is the type that they had, such as a Struct or a TypedDict, for their JSON Schema alone; None: nothing
    is said of them but that they are an object.
    """

    command: type[Command]
    from_version: int
    change: Callable[[Arguments], Arguments]
    arguments: Any = None


def by_type(upgrades: Iterable[Upgrade]) -> Mapping[str, Sequence[Upgrade]]:
    """The upgrades of each command, in order of their versions. One that is declared wrongly is left out."""
    found: dict[str, list[Upgrade]] = {}
    sound = [each for each in upgrades if isinstance(each.from_version, int)]
    for upgrade in sorted(sound, key=lambda upgrade: upgrade.from_version):
        found.setdefault(getattr(upgrade.command, "type", ""), []).append(upgrade)
    return found


def known_versions(model: type[Command], upgrades: Sequence[Upgrade]) -> range:
    """The versions of which arguments can be read here, given the upgrades of this command in order."""
    oldest = upgrades[0].from_version if upgrades else model.command_version
    return range(oldest, model.command_version + 1)


def parse_sent(model: type[C], arguments: bytes, version: int | None, upgrades: Sequence[Upgrade]) -> C:
    """Make a command from arguments of the version with which they were sent; None stands for the first.

    `upgrades` are those of this command, in order. Raises InvalidCommand, also for a version that is not known here
    (`unknown_command_version`), and UpgradeFailed for arguments of which an upgrade cannot make others.
    """
    version = version or 1
    if version == model.command_version:
        return parse(model, arguments)
    known = known_versions(model, upgrades)
    if version not in known:
        # Whatever the version is: no release takes what is no JSON object.
        argument_object(model, arguments)
        raise InvalidCommand(
            f"version {version} of {model.type} is not known here: {shown_versions(known)}",
            code=UNKNOWN_VERSION,
            field="command_version",
        )
    given = argument_object(model, arguments)
    for upgrade in upgrades[version - known[0] :]:
        given = _upgraded(upgrade, given)
    made = _json(model, given, max(UPGRADED_BYTES_MAX, 2 * len(arguments)))
    try:
        return parse(model, made)
    except ClassFailed:
        raise
    except InvalidCommand as error:
        text = f"{error} (as version {known[-1]}, upgraded from version {version})"
        raise InvalidCommand(text, code=error.code, field=error.field) from None


def parse_unsaid(model: type[C], arguments: bytes | Arguments, upgrades: Sequence[Upgrade], *, said_by: str) -> C:
    """Make a command from arguments of which nobody says the version: they are taken for the present one.

    Raises InvalidCommand and ClassFailed. Where older versions are taken too, what does not fit may be of one of them,
    so its text says which there are, and that `said_by` is where a client says his own.
    """
    try:
        return parse(model, arguments)
    except InvalidCommand as error:
        raise of_unsaid(error, model, upgrades, said_by) from None


def of_unsaid(error: InvalidCommand, model: type[Command], upgrades: Sequence[Upgrade], said_by: str) -> InvalidCommand:
    """The same error, with these words where they help."""
    if error.code != "invalid_arguments" or not upgrades or isinstance(error, ClassFailed):
        return error
    known = known_versions(model, upgrades)
    text = (
        f"{error} (as version {known[-1]} of {model.type}, since no `{said_by}` is given; "
        f"{shown_versions(known)} taken here)"
    )
    return InvalidCommand(text, code=error.code, field=error.field)


def shown_versions(known: range) -> str:
    """The known versions, in words."""
    return f"version {known[0]} is" if len(known) == 1 else f"versions {known[0]} to {known[-1]} are"


def _upgraded(upgrade: Upgrade, given: Arguments) -> Arguments:
    try:
        made: object = upgrade.change(given)
    except InvalidCommand:
        raise
    except BaseException as error:  # a function of the service's author
        text = described(error)[:_ERROR_CHARACTERS_MAX]
        raise _fault(upgrade.command, upgrade.from_version, f"raises {text}") from error
    if not isinstance(made, dict):
        text = f"returns a {type(made).__name__}, and must return a dict"
        raise _fault(upgrade.command, upgrade.from_version, text)
    return made


def _json(model: type[Command], given: Arguments, bytes_max: int) -> bytes:
    """A Decimal is written as the number that it was: only the command's type says which number is to stay exact."""
    try:
        text = _ENCODER.encode(given)
    except BaseException as error:  # noqa: BLE001  # what it returns may have methods of the author's
        why = described(error, with_type=False)
        raise _fault(model, model.command_version - 1, f"returns what JSON text cannot express: {why}") from None
    if len(text) > bytes_max:
        what = f"returns arguments of {len(text)} bytes, and may return at most {bytes_max}"
        raise _fault(model, model.command_version - 1, what)
    return text


def _fault(model: type[Command], version: int, what: str) -> UpgradeFailed:
    text = f"the upgrade of {model.type} from version {version} {what}"
    return UpgradeFailed(text, code="upgrade_failed")
