"""A rolling upgrade of the journal: its note has a second version, which the processes of before do not know.

In the worlds that have one, the newer release has announced that version, clients send both, and all processes of the
journal are of the older release until the operator replaces them. It has a source of chance of its own, so that worlds
without one are as they would be.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

from coordinator.stores.lane_tables import AnnouncedVersion
from tests.simulation import forgets
from tests.simulation.schedule import NEVER
from tests.simulation.services import NEWER_SERVICES, SERVICES, WriteNote, WriteSum

if TYPE_CHECKING:
    from coordinator.service.commands import Command
    from coordinator.service.service import Service
    from tests.simulation.world import World

UPGRADED: Final = "journal"
_EVERY: Final = 3
_WITHIN_S: Final = 4.0
_NEWER_SHARE: Final = 0.5


class Releases:
    """Which release a process is of, and which version a client sends."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._chance = random.Random(f"releases of {world.seed}").random
        self.is_upgraded = world.seed % _EVERY == 0
        self._replaced_at = self._chance() * _WITHIN_S if self.is_upgraded else 0.0
        self._is_replaced = not self.is_upgraded
        if self.is_upgraded:
            # The newer release has migrated the database.
            announced = AnnouncedVersion(type=WriteSum.type, version=WriteSum.command_version)
            world.databases[UPGRADED].tables[AnnouncedVersion][announced.type] = announced

    def service(self, lane: str) -> Service:
        """The service of a process that starts now."""
        service = (NEWER_SERVICES if self.is_upgraded and self._is_replaced else SERVICES)[lane]
        return forgets.of_persons(service) if self.world.rates["forgets"] and lane == "ledger" else service

    def sent(self, command: Command, options: dict[str, Any]) -> Command:
        """A command in the version in which it is sent, which the options say."""
        if not self.is_upgraded or not isinstance(command, WriteNote) or self._chance() >= _NEWER_SHARE:
            return command
        options["command_version"] = WriteSum.command_version
        return WriteSum(account=command.account, sum=command.amount, back=command.back)

    def due_at(self) -> float:
        """When the operator replaces the processes of the older release."""
        return NEVER if self._is_replaced else self._replaced_at

    def replace(self) -> None:
        """Processes that start from now on are of the newer release; those of before are stopped, or killed."""
        self._is_replaced = True
        for process in list(self.world.processes.values()):
            if process.lane_name == UPGRADED and not process.is_dead:
                self.world.trace("the operator replaces %s by one of the newer release", process)
                if self._chance() < 0.5:
                    process.stop()
                else:
                    process.crash()
