"""A row as a person asks for it: by its key, of one column or several, or by the value of a unique column."""

import re
from collections.abc import Iterator
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct

from coordinator.service.commands import INTEGER_MAX
from coordinator.service.declared_sagas import saga_of
from coordinator.service.ids import is_uuid
from coordinator.service.rows import Key, KeyPart, Ref, Row, shown_key
from coordinator.service.saga_timeline import SagaStep
from coordinator.service.service import Service
from coordinator.stores.field_types import field_type, hints_of
from coordinator.stores.value_types import UnknownType

_LANE: Final = r"/?(?:(?P<lane>[A-Za-z][A-Za-z0-9_-]{0,62})/)?"
_NAME: Final = r"(?P<name>[A-Za-z][A-Za-z0-9_-]{0,62})"
_OF_COLUMN: Final = re.compile(_LANE + _NAME + r"[.?](?P<column>[A-Za-z_][A-Za-z0-9_]{0,62})=(?P<value>.{1,300})")
_OF_KEY: Final = re.compile(_LANE + _NAME + r"[ /#:=]+(?P<value>[^/\s][^/]{0,99})/?")
_BETWEEN: Final = re.compile(r"[ /]+")
_NUMBER: Final = re.compile(r"#?(?P<value>[0-9]{1,16})")


class AskedRow(Struct, frozen=True, kw_only=True):
    """What somebody asks for: `value` is that of the key, or of `column`. `lane` and `name`, of a table or a saga, are
    None where any is meant."""

    value: str
    lane: str | None = None
    name: str | None = None
    column: str | None = None

    def is_of(self, lane: str, *names: str) -> bool:
        """Whether a table with these names, of this lane, is meant."""
        return self.lane in (None, lane) and (self.name is None or self.name.lower() in names)


def asked_row(text: str) -> AskedRow | None:
    """The row that is meant by `seats/7`, `seats 7`, `seats?code=A1`, `7`, or an ordering key (`seats.code="A1"`).

    A name may stand behind that of its lane: `seats/seats/7`. None: no row is asked for so.
    """
    for form in (_OF_COLUMN, _OF_KEY, _NUMBER):
        found = form.fullmatch(text)
        if found is not None:
            return AskedRow(**found.groupdict())
    return None


def refs_of(service: Service, text: str) -> Iterator[Ref[Row]]:
    """The rows of a service that are meant: by the forms of `asked_row`, or by a key of several columns.

    The latter is `slots/kim/17`, `slots/kim,17`, `slots/["kim", 17]`, `slots?doctor=kim&number=17`, or an ordering key
    (`slots.doctor,number=["kim",17]`).
    """
    if (row := asked_row(text)) is not None:
        for model in _models_of(service, row):
            column = row.column or str(model.key)
            value = column_value(model, column, row.value) if column in columns_found_by(model) else None
            if value is not None:
                yield Ref(model, column, value)
    for model in service.models:
        parts = None if isinstance(model.key, str) or model is SagaStep else _key_texts(service.lane, model, text)
        values = [column_value(model, *each) for each in zip(model.key, parts or (), strict=False)]
        key = tuple(value for value in values if value is not None)
        if len(key) == len(model.key):
            yield Ref(model, model.key, key)


def key_text(key: Key) -> str:
    """A key as one asks for its row: `17`, `kim/17`, or a list where a part has a space, a slash or a comma."""
    if not isinstance(key, tuple):
        return str(key)
    is_plain = all(part and "," not in part and _BETWEEN.search(part) is None for part in map(str, key))
    return shown_key(key) if is_plain else msgspec.json.encode(key).decode()


def _key_texts(lane: str, model: type[Row], text: str) -> list[str] | None:
    """Those of a key of several columns; None: no row of this model is meant."""
    text = text.strip("/ ")
    # A table may have the name of its lane, so that is only taken away where the text means nothing with it.
    return _key_texts_of(model, text) or _key_texts_of(model, text.removeprefix(f"{lane}/"))


def _key_texts_of(model: type[Row], text: str) -> list[str] | None:
    """The same, without a lane's name before it."""
    columns, names = list(model.key), _names(model)
    ordered, pairs, path = text.partition(f"{','.join(columns)}="), text.partition("?"), _BETWEEN.split(text)
    if ordered[0] == f"{model.table}.":
        parts = _listed(ordered[2])
    elif pairs[0].lower() in names and pairs[2]:
        named = dict(each.partition("=")[::2] for each in pairs[2].split("&"))
        parts = [named[each] for each in columns] if named.keys() == {*columns} else []
    elif path[0].lower() in names:
        # In a list a part may have a space or a slash of its own.
        listed = _listed(text[len(path[0]) + 1 :])
        parts = listed if len(listed) == len(columns) else path[1:]
    else:
        return None
    return parts if len(parts) == len(columns) else None


def _listed(text: str) -> list[str]:
    """The parts of a list, as JSON has it or between commas."""
    try:
        return [str(each) for each in msgspec.json.decode(text, type=list[int | str])]
    except msgspec.DecodeError:
        return [each.strip() for each in text.split(",")]


def _names(model: type[Row]) -> set[str]:
    """By what people call its rows."""
    declared = saga_of(model)
    return {model.table, model.table.rstrip("s"), *([] if declared is None else [declared.name])}


def _models_of(service: Service, row: AskedRow) -> Iterator[type[Row]]:
    """The models of which such a row may be, by one column."""
    for model in service.models:
        if model is not SagaStep and isinstance(model.key, str) and row.is_of(service.lane, *_names(model)):
            yield model


def not_found_by(service: Service, text: str, *, is_operated: bool) -> str:
    """Why such a row is not looked for by the column that somebody names, in words that others follow; empty: it is."""
    row = asked_row(text)
    if row is None or any(isinstance(ref.column, tuple) for ref in refs_of(service, text)):
        return ""
    for model in service.models:
        is_of_several = isinstance(model.key, tuple) and model is not SagaStep
        # `slots/kim/17` is read as of lane `slots`.
        if is_of_several and not _names(model).isdisjoint({row.lane, row.name}):
            return _found_together(model)
    for model in _models_of(service, row):
        known = columns_found_by(model)
        if row.column is not None and row.column not in known:
            return f"rows of {model.table} are found by {', '.join(known)}, and not by {row.column}; "
        if row.column is not None and row.column != model.key and not is_operated:
            return f"rows of {model.table} are found by {row.column} in the lanes that you operate; "
    return ""


def _found_together(model: type[Row]) -> str:
    form = "/".join([model.table, *(each.upper() for each in model.key)])
    return f"rows of {model.table} are found by {', '.join(model.key)} together, as {form}; "


def columns_found_by(model: type[Row]) -> tuple[str, ...]:
    """The columns by which a row is found: its key, if that is one column, and those that are unique."""
    return (model.key, *model.unique) if isinstance(model.key, str) else ()


def column_value(model: type[Row], column: str, text: str) -> KeyPart | None:
    """The value as a column has it; None: no row can have it."""
    hint = hints_of(model).get(column)
    try:
        kind = None if hint is None else field_type(hint).kind
    except UnknownType:
        return None
    text = _without_quotes(text)
    if kind is int:
        return int(text) if text.isascii() and text.isdigit() and int(text) <= INTEGER_MAX else None
    if kind is UUID:
        return UUID(text) if is_uuid(text) else None
    # No row has a NUL: PostgreSQL takes none.
    return text if kind is str and "\0" not in text else None


def _without_quotes(text: str) -> str:
    """As JSON has it in an ordering key, or bare."""
    if not text.startswith('"'):
        return text
    try:
        return msgspec.json.decode(text, type=str)
    except msgspec.DecodeError:
        return text
