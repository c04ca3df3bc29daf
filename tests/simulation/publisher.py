"""A publisher's connection: mirrors coordinator/transports/rabbitmq/publisher.py without asyncio."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.simulation.schedule import NEVER

if TYPE_CHECKING:
    from tests.simulation.broker import Link
    from tests.simulation.schedule import Actor
    from tests.simulation.world import World


class Publisher:
    """Keeps itself connected, waits for confirms, and repeats in order what was not confirmed. Part of an actor."""

    def __init__(self, world: World, name: str, actor: Actor) -> None:
        self.world = world
        self.name = name
        self.place = name.partition("#")[0]
        self.actor = actor
        self.link: Link | None = None
        self.connect_at = 0.0
        self._number = 0
        self._waiting: dict[int, tuple[str, Any, Callable[[bool], None]]] = {}

    def publish(self, target: str, payload: Any, on_confirm: Callable[[bool], None]) -> int:
        """Return its number. `on_confirm` is told whether the broker took it; what is lost is repeated first."""
        self._number += 1
        self._waiting[self._number] = (target, payload, on_confirm)
        if self.link is not None:
            self.link.outbound.append((self._number, target, payload))
            self.world.wake(self.world.broker.actor)
        return self._number

    def forget(self, number: int) -> None:
        """Do not repeat it."""
        self._waiting.pop(number, None)

    def send(self, payload: Any) -> bool:
        """Without a confirm."""
        if self.link is None:
            return False
        self.link.outbound.append((0, "reply", payload))
        self.world.wake(self.world.broker.actor)
        return True

    def step(self) -> bool:
        link = self.link
        world = self.world
        if link is None:
            if world.now < self.connect_at or world.now < world.broker.open_at(self.place):
                return False
            self.link = link = world.broker.connect(self.name, self.place, self.actor)
            for number, (target, payload, _) in self._waiting.items():
                link.outbound.append((number, target, payload))
            world.wake(world.broker.actor)
            return True
        if not link.is_open:
            if world.now < link.notice_at:
                return False
            self.link = None
            self.connect_at = world.now + world.chance() * 0.1
            return True
        if not link.inbound:
            return False
        number, is_taken = link.inbound.popleft()
        waiting = self._waiting.pop(number, None)
        if waiting is not None:
            waiting[2](is_taken)
        return True

    def wake(self) -> float:
        if self.link is None:
            return max(self.connect_at, self.world.broker.open_at(self.place))
        return NEVER if self.link.is_open else self.link.notice_at

    def close(self) -> None:
        """The process is gone: the broker sees the connection end."""
        self._waiting.clear()
        if self.link is not None:
            self.world.broker.drop_link(self.link)
