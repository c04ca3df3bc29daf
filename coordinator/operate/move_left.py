"""The rows that a move has still to bring, and those of them that the other database refuses."""

from collections.abc import Mapping, Sequence

from coordinator.service.rows import Key, Row
from coordinator.service.text import counted

Keys = Mapping[type[Row], set[Key]]


class LeftRows:
    """Keys by model. A row that is refused by itself may wait for another one: it is tried again with the rest."""

    def __init__(self) -> None:
        self._keys: dict[type[Row], set[Key]] = {}
        self.refused: Keys = {}
        """Those that were refused when they were last tried."""

    def __len__(self) -> int:
        return count_of(self._keys)

    @property
    def keys(self) -> Keys:
        """All of them."""
        return self._keys

    @property
    def changed(self) -> int:
        """How many of them are left only because the lane has changed them."""
        return count_of(without(self._keys, self.refused))

    def add(self, keys: Keys) -> None:
        """These are to be brought, too."""
        for model, some in keys.items():
            if some:
                self._keys.setdefault(model, set()).update(some)

    def take(self) -> Keys:
        """All of them, which somebody brings now."""
        taken, self._keys = self._keys, {}
        return taken

    def put_back(self, refused: Keys) -> bool:
        """What was refused of those taken last; whether some were before, and none of these could be brought."""
        before, self.refused = self.refused, refused
        self.add(refused)
        return count_of(before) > 0 and not count_of(without(before, refused))


def count_of(keys: Keys) -> int:
    """How many rows these are."""
    return sum(map(len, keys.values()))


def without(keys: Keys, others: Keys) -> dict[type[Row], set[Key]]:
    """Those of these rows that are not among others."""
    left = {model: of_model - others.get(model, set()) for model, of_model in keys.items()}
    return {model: of_model for model, of_model in left.items() if of_model}


def in_words(keys: Keys, columns: Mapping[type[Row], Sequence[str]] | None = None) -> str:
    """The tables of these rows, for a person, and columns of them."""
    named = {model: f": {', '.join(of_model)}" for model, of_model in (columns or {}).items() if of_model}
    counts = {model: counted(len(of_model), "row") for model, of_model in keys.items()}
    return ", ".join(f"{model.table} ({count}{named.get(model, '')})" for model, count in counts.items())
