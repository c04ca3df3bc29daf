"""Which acknowledgements to send: one for all deliveries before the first unsettled one, single ones beyond it."""

from collections.abc import Iterable

from msgspec import Struct


class Acknowledgement(Struct, frozen=True):
    """Basic.Ack of one tag, or of all up to it."""

    tag: int
    multiple: bool


class Acknowledger:
    """The unacknowledged deliveries of one channel."""

    def __init__(self) -> None:
        self._is_settled: dict[int, bool] = {}

    @property
    def unacknowledged(self) -> int:
        """How many there are."""
        return len(self._is_settled)

    @property
    def first(self) -> int | None:
        """The first of them; None: there is none."""
        return next(iter(self._is_settled), None)

    def delivered(self, tag: int) -> None:
        """The broker delivered it; tags come in order."""
        self._is_settled[tag] = False

    def acknowledge(self, tags: Iterable[int]) -> list[Acknowledgement]:
        """These deliveries are settled and on disk: the acknowledgements to send."""
        fresh = [tag for tag in tags if tag in self._is_settled]
        for tag in fresh:
            self._is_settled[tag] = True
        up_to = 0
        for tag, is_settled in self._is_settled.items():
            if not is_settled:
                break
            up_to = tag
        acknowledgements = [Acknowledgement(up_to, multiple=True)] if up_to else []
        acknowledgements += [Acknowledgement(tag, multiple=False) for tag in fresh if tag > up_to]
        for tag in [tag for tag in self._is_settled if tag <= up_to]:
            del self._is_settled[tag]
        for acknowledgement in acknowledgements:
            self._is_settled.pop(acknowledgement.tag, None)
        return acknowledgements
