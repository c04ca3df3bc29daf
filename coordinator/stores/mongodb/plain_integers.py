"""What the driver does for readers and operators: an integer of 64 bits is an int, which msgspec writes.

A lane, whose reads have to be quick, has `documents.plain` instead.
"""

from typing import TYPE_CHECKING, Any, Final

from bson.codec_options import TypeDecoder, TypeRegistry
from bson.int64 import Int64

if TYPE_CHECKING:
    from bson.codec_options import CodecOptions


class _PlainInteger(TypeDecoder):
    bson_type = Int64

    def transform_bson(self, value: Any) -> int:
        return int(value)


_REGISTRY: Final = TypeRegistry([_PlainInteger()])


def with_plain_integers(options: "CodecOptions[Any]") -> "CodecOptions[Any]":
    """The options of a client, for a database whose documents have plain integers."""
    return options.with_options(type_registry=_REGISTRY)
