"""Announcements: the commands that releases know, and their versions, as `coordinator migrate` writes them.

A lane keeps a command that is announced, and that its process does not know, for a process that does. So an
announcement is taken back by an operator only: releases have no order, and the migration of an older one may run last.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from msgspec import Struct

from coordinator.service.errors import ConfigurationError
from coordinator.service.service import Service
from coordinator.service.unit_of_work import Handler

log = structlog.get_logger("migrate")


class Withdrawal(Struct, frozen=True):
    """Takes back what is announced of a command type, above a version; None: all of it."""

    type: str
    version: int | None = None

    def left_of(self, announced: int) -> int | None:
        """What is left of an announcement."""
        return None if self.version is None else min(self.version, announced)


class Announcement(Struct, frozen=True):
    """The version of a type that is announced, and from which side its commands come (`AnnouncedVersion.origin`)."""

    version: int
    origin: str | None = None


class AnnouncementChange(Struct, frozen=True):
    """What is announced of a type before and after; None: nothing is."""

    type: str
    before: Announcement | None
    after: Announcement | None


class Announcements:
    """What is announced in a lane's database, and what becomes of it when a release migrates."""

    def __init__(
        self, announced: Mapping[str, Announcement], service: Service, withdrawals: Sequence[Withdrawal]
    ) -> None:
        """`check_withdrawals` has passed the withdrawals."""
        self._service = service
        self._withdrawals = withdrawals
        self._before = announced
        self._after = dict(announced)
        for each in withdrawals:
            there = self._after.pop(each.type, None)
            left = None if there is None else each.left_of(there.version)
            if there is not None and left:
                self._after[each.type] = there if left == there.version else Announcement(left)
        for handler in service.handlers:
            kind = handler.command.type
            self._after[kind] = _with(self._after.get(kind), handler)

    @property
    def changes(self) -> list[AnnouncementChange]:
        """What is to be written."""
        before, after = self._before, self._after
        return [
            AnnouncementChange(kind, before.get(kind), after.get(kind))
            for kind in {**before, **after}
            if before.get(kind) != after.get(kind)
        ]

    def say(self) -> None:
        """Say what was withdrawn, and what this release does not know: commands of it would make its lane wait."""
        name, known = self._service.lane, self._service.versions
        for kind in dict.fromkeys(each.type for each in self._withdrawals):
            before, after = _version(self._before.get(kind)), _version(self._after.get(kind))
            if before == after:
                log.warning("nothing_withdrawn", service=name, type=kind, announced=before)
            else:
                log.info("announcement_withdrawn", service=name, type=kind, announced=before, left=after)
        for kind, announced in ((kind, each.version) for kind, each in self._after.items()):
            if kind not in known:
                log.warning("unknown_type_announced", service=name, type=kind, announced=announced)
            elif announced > known[kind]:
                log.warning("newer_version_announced", service=name, type=kind, announced=announced, known=known[kind])


def _with(announced: Announcement | None, handler: Handler[Any]) -> Announcement:
    """What is announced once a release with this handler has migrated: an older one that comes later takes nothing
    back, neither a version nor that anybody may issue it."""
    version = handler.command.command_version
    if announced is not None and (announced.version > version or announced == Announcement(version, "public")):
        return announced
    return Announcement(version, "system" if handler.is_internal or handler.is_operators else "public")


def _version(announced: Announcement | None) -> int | None:
    return None if announced is None else announced.version


def check_withdrawals(service: Service, withdrawals: Sequence[Withdrawal]) -> None:
    """Raise ConfigurationError for withdrawals of what the service itself knows: its own lane applies that."""
    known = service.versions
    wrong = [each for each in withdrawals if (each.version or 0) < known.get(each.type, 0)]
    if wrong:
        found = dict.fromkeys(f"{each.type} in version {known[each.type]}" for each in wrong)
        last = wrong[-1].type
        raise ConfigurationError(
            f"{service.lane}: --withdraw: this release has {', '.join(found)}, and announces that with each migration: "
            f"withdraw the versions above it ({last}={known[last]}), or migrate with the release that no longer has it"
        )
