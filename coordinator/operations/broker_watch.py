"""Looking at the lengths of lanes' queues again and again, over one connection, in a thread of its own."""

from collections.abc import Sequence
from contextlib import ExitStack, suppress

from msgspec import Struct

from coordinator.operate.broker import broker
from coordinator.operate.queue_depth import BrokerView, EffectsDepth, QueueDepth
from coordinator.runtime.settings import BrokerSettings, load
from coordinator.service.errors import ConfigurationError, Unavailable
from coordinator.service.outside_calls import effects_key


class LaneDepth(Struct, frozen=True, kw_only=True):
    """A lane's queue (None: there is none), what the broker has dead-lettered and its lane has not taken in, and its
    service's calls to the outside (None: it has no queue for them)."""

    queue: QueueDepth | None
    dead: int
    effects: EffectsDepth | None


class BrokerWatch:
    """The queues of some lanes. It is used by one thread."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._broker: BrokerView | None = None

    def look(self, lanes: Sequence[str]) -> dict[str, LaneDepth] | str:
        """The queues of these lanes; or, in words, why they cannot be seen."""
        if not lanes:
            return {}
        try:
            if self._broker is None:
                self._broker = self._stack.enter_context(broker(load(BrokerSettings)))
            return {lane: self._of(self._broker, lane) for lane in lanes}
        except (Unavailable, ConfigurationError) as error:
            self.close()
            return str(error)
        except Exception as error:  # noqa: BLE001  # drivers' errors are of many kinds, and the connection is lost
            self.close()
            return f"the broker: {type(error).__name__}: {error}"

    def close(self) -> None:
        """Disconnect; the next look connects again."""
        self._broker = None
        stack, self._stack = self._stack, ExitStack()
        # It may be lost already.
        with suppress(Exception):
            stack.close()

    def _of(self, connected: BrokerView, lane: str) -> LaneDepth:
        dead = [connected.dead_depth(key) for key in (lane, effects_key(lane))]
        return LaneDepth(
            queue=connected.lane_depth(lane),
            dead=sum(each.ready for each in dead if each is not None),
            effects=connected.effects_depth(lane),
        )
