"""What a batch knows of the rows of each model that it has met."""

from typing import Any

from coordinator.lane.selections import Coverage, FiledRows
from coordinator.service.rows import Key, Row, Value
from coordinator.stores.row_checks import RowCheck, RowChecks


class ModelRows:
    """The rows of one model: as the database has them, as they are now, and by their unique columns.

    `filed` has them by the columns by which rows were selected, and `covered` what selections have read, by columns and
    values.
    """

    def __init__(self, model: type[Row], check: RowCheck) -> None:
        self.check = check
        self.is_the_lanes = check.is_the_lanes
        self.copied = check.copied
        self.types = check.types
        self.key_type = check.key_type
        self.first, self.second, self.third = check.inline_parts
        self.place = check.place
        self.original: dict[Key, Any] = {}
        self.current: dict[Key, Any] = {}
        self.unique: dict[str, dict[Key, Key | None]] = {column: {} for column in model.unique}
        self.filed: dict[tuple[str, ...], FiledRows] = {}
        self.covered: dict[tuple[tuple[str, Value], ...], Coverage] = {}


class ModelsMet(dict[type[Row], ModelRows]):
    """What the batch knows of each model it has met."""

    def __init__(self, checks: RowChecks) -> None:
        super().__init__()
        self.met: dict[type[Row], ModelRows] = {}
        """The same. A plain dict is faster."""
        self.checks = checks

    def __missing__(self, model: type[Row]) -> ModelRows:
        kind = self[model] = self.met[model] = ModelRows(model, self.checks.of(model))
        return kind
