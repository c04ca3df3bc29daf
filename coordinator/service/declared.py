"""The metaclass of rows and commands: what describes a class stands in the line that declares it.

    class Seat(VersionedRow, table="seats", key="id"): ...
    class BookSeat(Command, type="seats.book"): ...

Each keyword becomes an attribute of the class, of its own name or of another. Such classes are frozen, and their fields
are given by name.
"""

import re
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import StructMeta

_UNKNOWN = re.compile(r"('\w+') is an invalid keyword argument|.* got an unexpected keyword argument ('\w+')")
"""As msgspec says it, by the name of its metaclass: before Python 3.13, and since."""


class DeclaredMeta(StructMeta):
    """A metaclass takes the keywords that its `keywords` name, and msgspec the others.

    `attributes`: the names of the attributes that keywords become, where a field may have the keyword's own name.
    """

    keywords: tuple[str, ...] = ()
    attributes: Mapping[str, str] = {}

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> Any:
        given = {keyword: options.pop(keyword) for keyword in cls.keywords if keyword in options}
        try:
            made = super().__new__(cls, name, bases, namespace, **({"frozen": True, "kw_only": True} | options))
        except TypeError as error:
            # What msgspec says does not name the class, which may be one of many.
            shared = ", ".join(_shared_defaults(name, namespace)) if "default" in str(error) else ""
            if (unknown := _UNKNOWN.match(str(error))) is not None:
                own = ", ".join(cls.keywords)
                raise TypeError(
                    f"{name}: it takes no {unknown[1] or unknown[2]}: it takes {own}, and what a Struct takes"
                ) from None
            raise TypeError(shared or f"{name}: {error}") from None
        for keyword, value in given.items():
            setattr(made, cls.attributes.get(keyword, keyword), value)
        return made


def _shared_defaults(name: str, namespace: Mapping[str, Any]) -> Iterator[str]:
    """The fields with a default that could be changed in place, and what to write instead."""
    for field, given in namespace.items():
        default = getattr(given, "default", given)
        if isinstance(default, list | dict | set | bytearray) and default and not field.startswith("__"):
            yield (
                f"{name}.{field}: its default {default!r:.100} would be one object for all of them: write "
                f"{field} = msgspec.field(default_factory=lambda: {default!r:.100})"
            )


def undescribed(kind: msgspec.inspect.Type) -> msgspec.inspect.Type:
    """A type without what its `Meta` says for readers, such as a description."""
    return kind.type if isinstance(kind, msgspec.inspect.Metadata) else kind


def kinds_of(hint: Any) -> set[Any]:
    """The types of which one is that of each value that an annotation takes."""
    origin = get_origin(hint)
    if origin is Annotated:
        return kinds_of(get_args(hint)[0])
    if origin is Literal:
        return {type(value) for value in get_args(hint)}
    if origin in (Union, UnionType):
        return {kind for part in get_args(hint) for kind in kinds_of(part)}
    return {hint}
