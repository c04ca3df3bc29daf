"""What is said of limits fits on a line, and says what to write."""

from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta

from coordinator import VISIBLE, Command, Handler, Id, Name, Service, UnitOfWork, VersionedRow
from coordinator.service.errors import ConfigurationError
from coordinator.service.limit_texts import limits_said_twice, with_short_patterns
from coordinator.service.service import Service as AnyService
from coordinator.stores.row_defects import check_declaration
from coordinator.testing import LaneInMemory

Short = Annotated[Name, Meta(max_length=120)]
WRITTEN = "Annotated[str, Meta(min_length=1, max_length=120, pattern=VISIBLE)]"


@pytest.mark.parametrize(
    ("hint", "said"),
    [
        (Short, f"two Metas say max_length, since the type has limits of its own: write {WRITTEN}"),
        (list[Short] | None, f"two Metas say max_length, since the type has limits of its own: write {WRITTEN}"),
        (Annotated[Id, Meta(ge=2, le=9)], "two Metas say ge, le, since the type has limits of its own: write "),
        (Annotated[Id, Meta(ge=2)], "write Annotated[int, Meta(ge=2, le=9007199254740991)]"),
        (Annotated[Name, Meta(pattern="a" * 99)], f"pattern='{'a' * 79}…)]"),
        (Annotated[Name, Meta(description="of a reader")], None),
        (Name, None),
        (dict[str, int], None),
    ],
)
def test_limits_that_are_said_twice_are_put_into_one(hint: Any, said: str | None) -> None:
    """That is what msgspec refuses; what is written instead it takes."""
    text = limits_said_twice(hint)
    if said is None:
        assert text is None
        return
    with pytest.raises(TypeError, match="Multiple `Meta` annotations setting"):
        msgspec.json.Decoder(hint)
    assert text is not None
    assert said in text
    written = text.partition(": write ")[2]
    if "…" not in written:
        msgspec.json.Decoder(eval(written, {"Annotated": Annotated, "Meta": Meta, "VISIBLE": VISIBLE}))


@pytest.mark.parametrize(
    ("text", "short"),
    [
        (
            f"Expected `str` matching regex {VISIBLE!r} - at `$.name`",
            "Expected `str` matching regex VISIBLE - at `$.name`",
        ),
        (f"found, type `msgspec.Meta(pattern={VISIBLE!r}, ge=1)`", "found, type `msgspec.Meta(pattern=VISIBLE, ge=1)`"),
        ("Expected `str` matching regex '[a-z]'", "Expected `str` matching regex '[a-z]'"),
        (f"matching regex {'a' * 100!r} - at `$`", f"matching regex '{'a' * 79}… - at `$`"),
        (f"matching regex {chr(39) + 'a' * 100!r} - at `$`", f"matching regex \"'{'a' * 78}… - at `$`"),
        ("of\n two lines", "of two lines"),
    ],
)
def test_long_patterns_are_named_or_cut(text: str, short: str) -> None:
    assert with_short_patterns(text) == short


class Join(Command, type="library.join"):
    name: Short


class Member(VersionedRow, table="members", key="id"):
    id: int
    name: Short


def join(work: UnitOfWork, command: Join) -> Member: ...  # type: ignore[empty-body]


def test_a_declaration_with_such_a_type_is_refused_in_lines_that_say_what_to_write() -> None:
    service = Service("library", models=(Member,), handlers=(Handler(Join, join),))
    with pytest.raises(ConfigurationError) as refused:
        check_declaration(service)
    lines = str(refused.value).splitlines()
    assert max(map(len, lines)) < 400, lines
    for field in ("Member.name", "Join.name"):
        assert f"  {field}: two Metas say max_length, since the type has limits of its own: write {WRITTEN}" in lines


class Named(VersionedRow, table="named", key="id"):
    id: int
    name: Name


class Put(Command, type="library.put"):
    id: Id


def put(work: UnitOfWork, command: Put) -> None:
    work.add(Named(id=command.id, name=" a"))


def test_a_row_with_a_value_of_another_form_is_refused_in_a_line() -> None:
    service: AnyService = Service("library", models=(Named,), handlers=(Handler(Put, put),))
    reason = str(LaneInMemory(service).apply(Put(id=1)).reason)
    assert "named.name: Expected `str` matching regex VISIBLE, and it is ' a'" in reason
