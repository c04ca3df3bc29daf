"""The metaclass of rows and commands: what describes a class stands in the line that declares it.

    class Seat(VersionedRow, table="seats", key="id"): ...
    class BookSeat(Command, type="seats.book"): ...

Each keyword becomes an attribute of the class, of its own name or of another. Such classes are frozen, and their fields
are given by name.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import StructMeta


class DeclaredMeta(StructMeta):
    """A metaclass takes the keywords that its `keywords` name, and msgspec the others.

    `attributes`: the names of the attributes that keywords become, where a field may have the keyword's own name.
    """

    keywords: tuple[str, ...] = ()
    attributes: Mapping[str, str] = {}

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> Any:
        given = {keyword: options.pop(keyword) for keyword in cls.keywords if keyword in options}
        made = super().__new__(cls, name, bases, namespace, **({"frozen": True, "kw_only": True} | options))
        for keyword, value in given.items():
            setattr(made, cls.attributes.get(keyword, keyword), value)
        return made


def undescribed(kind: msgspec.inspect.Type) -> msgspec.inspect.Type:
    """A type without what its `Meta` says for readers, such as a description."""
    return kind.type if isinstance(kind, msgspec.inspect.Metadata) else kind
