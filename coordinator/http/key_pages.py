"""Pages of lists whose keys are no numbers: texts, UUIDs, and keys of several columns."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from coordinator.http.problems import RequestRefused
from coordinator.service.errors import ConfigurationError
from coordinator.service.paging import PAGE_DEFAULT, PAGE_MAX
from coordinator.service.rows import Key, Row, key_columns
from coordinator.service.service import Service
from coordinator.stores.row_checks import InvalidRow, RowChecks
from coordinator.stores.sql.declared_tables import columns_of

_SHOWN_MAX: Final = 40
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")


class KeyPageQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which part of a list: at most `limit` rows behind the key `after`."""

    after: str | None = None
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = PAGE_DEFAULT


def after_key(service: Service, model: type[Row], query: KeyPageQuery) -> Key | None:
    """The key behind which a page of the model's rows begins, as rows have it; None: it is the first page.

    It is a text, an integer, a UUID, or a tuple where the key has several columns: these are asked for as `next` of a
    page has them, a JSON array. Raises RequestRefused (400) for what is the key of no row, and WrongUse for a class
    that is no row of the service.
    """
    if query.after is None:
        return None
    try:
        key: Key = RowChecks(service).of(model).key(model.key, key_of_text(kinds_of_key(model), query.after))
    except (ValueError, InvalidRow) as error:
        raise no_key(error) from None
    return key


def no_key(error: Exception) -> RequestRefused:
    """The answer to an `after` that is the key of no row."""
    return RequestRefused(400, "invalid_query", f"after must be the key of a row: {error}", field="after")


def kinds_of_key(model: type[Row]) -> list[type]:
    """The types of the columns of a model's key. Raises ConfigurationError for one that no text can name."""
    columns = columns_of(model)
    for name in key_columns(model):
        if name not in columns:
            raise ConfigurationError(f"{model.__name__}.{name}: no path can name a key of this type")
    return [columns[name].type.python_type for name in key_columns(model)]


def key_of_text(kinds: Sequence[type], text: str) -> Any:
    """The key that a text means: of several columns a JSON array, as `next` has it. Raises ValueError."""
    if len(kinds) == 1:
        return key_part(kinds[0], text)
    model: Any = tuple.__class_getitem__(tuple(kinds))
    try:
        parts = msgspec.json.decode(text, type=model)
    except (msgspec.MsgspecError, RecursionError):
        raise ValueError(f"{text[:_SHOWN_MAX]!a} is no array of the {len(kinds)} values of a key") from None
    return parts


def key_part(kind: type, text: str) -> Any:
    """The value that a text means; each value has one text. Raises ValueError."""
    if kind is str:
        return text
    if kind is int:
        if not _INTEGER.fullmatch(text):
            raise ValueError(f"{text[:_SHOWN_MAX]!a} is no decimal integer")
        return int(text)
    return msgspec.convert(text, kind)
