"""What is wrong with the versions of a service's commands, and with the upgrades between them."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence

from coordinator.service.commands import INTEGER_MAX, Command
from coordinator.service.continuation import Continuation
from coordinator.service.outside_calls import Effect
from coordinator.service.upgrades import Upgrade


def defects_of_versions(
    lane: str, commands: Iterable[type[Command]], upgrades: Sequence[Upgrade], *, are_all: bool = True
) -> Iterator[str]:
    """Each defect as a line that names the command.

    `commands` are those that are handled. `are_all`: an upgrade of another one is a defect, unless it is of an effect.
    """
    known = {command.type: command for command in commands if _is_typed(command)}
    for command in known.values():
        yield from _of_command(command, [each for each in upgrades if _type_of(each.command) == command.type])
    if are_all:
        yield from (text for each in upgrades for text in _of_stranger(lane, known, each))


def defects_of_effect_versions(effects: Sequence[type[Effect]], upgrades: Sequence[Upgrade]) -> Iterator[str]:
    """Each version of an effect that cannot be made of the one before it, as a line."""
    return defects_of_versions("", effects, upgrades, are_all=False)


def _of_command(command: type[Command], upgrades: Sequence[Upgrade]) -> Iterator[str]:
    name, version = command.__name__, command.command_version
    if "command_version" in command.__struct_fields__:
        yield f"{name}.command_version: a command has that name for something else"
        return
    if not _is_version(version):
        yield f"{name}: version={version!r} is no whole number from 1 on"
        return
    if issubclass(command, Continuation):
        if version != 1 or upgrades:
            yield f"{name}: a continuation has no versions, since the coordinator makes its arguments"
        return
    steps = Counter(each.from_version for each in upgrades if _is_version(each.from_version))
    for wrong in (each for each in upgrades if not _is_version(each.from_version)):
        yield f"{name}: an upgrade has from_version={wrong.from_version!r}, which is no whole number from 1 on"
    for step, times in sorted(steps.items()):
        if times > 1:
            yield f"{name} has {times} upgrades from version {step}"
        if step >= version:
            yield (
                f"{name} has an upgrade from version {step}, and version {version} is its last: "
                f"declare it with version={step + 1}"
            )
    lowest = min((step for step in steps if step < version), default=version - 1)
    missing = [str(step) for step in range(max(lowest, 1), version) if step not in steps]
    if missing:
        yield (
            f"{name} has version {version}, and no upgrade from version {', '.join(missing)}: commands that were sent "
            f"with it could not be applied. Declare @….upgrades({name}, from_version={missing[0]})"
        )


def _of_stranger(lane: str, known: Collection[str], upgrade: Upgrade) -> Iterator[str]:
    command: object = upgrade.command
    if not (isinstance(command, type) and issubclass(command, Command)):
        yield f"an upgrade is of {command!r:.100}, which is no class of commands"
        return
    kind = _type_of(command)
    is_own_effect = issubclass(command, Effect) and kind is not None and kind.startswith(f"{lane}.")
    if kind not in known and not is_own_effect:
        yield f"{command.__name__} has an upgrade, and no handler here"


def _is_typed(command: object) -> bool:
    return isinstance(command, type) and issubclass(command, Command) and _type_of(command) is not None


def _type_of(command: object) -> str | None:
    kind = getattr(command, "type", None)
    return kind if isinstance(kind, str) else None


def _is_version(version: object) -> bool:
    return type(version) is int and 1 <= version <= INTEGER_MAX
