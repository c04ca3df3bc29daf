"""Takes deliveries apart: a pack is whole only if its numbers are one publisher's, one after the other.

The commands of a publisher session are applied in the order of their numbers, even if a message has them in another
order, or leaves out a number that comes in the next message. Each run of numbers is then a delivery of its own to the
lane, and may be early, and wait, while the others are applied. The message is acknowledged with the last of its runs.
"""

from collections.abc import Iterable, Sequence

import msgspec

from coordinator.lane.delivery import Delivery
from coordinator.protocol.wire import CommandMessage


class Runs:
    """The deliveries of one channel that were taken apart."""

    def __init__(self) -> None:
        self._left: dict[int, int] = {}

    def forget(self) -> None:
        """Begin again: the broker delivers unacknowledged messages again."""
        self._left.clear()

    def of(self, deliveries: Iterable[Delivery]) -> list[Delivery]:
        """The deliveries, each as one run of numbers, or as several."""
        found: list[Delivery] = []
        for delivery in deliveries:
            runs = [delivery.commands] if len(delivery.commands) == 1 else _runs(delivery.commands)
            if len(runs) <= 1:
                found.append(delivery)
                continue
            self._left[delivery.tag] = len(runs)
            found.extend(msgspec.structs.replace(delivery, commands=run) for run in runs)
        return found

    def completed(self, deliveries: Sequence[Delivery]) -> list[int]:
        """The tags of the messages of which every run is done."""
        if not self._left:
            return [delivery.tag for delivery in deliveries]
        tags: list[int] = []
        for delivery in deliveries:
            left = self._left.get(delivery.tag, 1) - 1
            if left:
                self._left[delivery.tag] = left
            else:
                self._left.pop(delivery.tag, None)
                tags.append(delivery.tag)
        return tags


def _runs(commands: tuple[CommandMessage, ...]) -> list[tuple[CommandMessage, ...]]:
    """The commands in their order, cut where the next number does not follow, or is another publisher's.

    A command without a number belongs to the run that it stands in.
    """
    cuts: list[int] = []
    publisher: str | None = None
    expected = 0
    for position, message in enumerate(commands):
        if message.publisher_seq is None or message.publisher is None:
            continue
        if publisher is not None and (message.publisher, message.publisher_seq) != (publisher, expected):
            cuts.append(position)
        publisher, expected = message.publisher, message.publisher_seq + 1
    if not cuts:
        return [commands]
    return [commands[start:end] for start, end in zip([0, *cuts], [*cuts, len(commands)], strict=True)]
