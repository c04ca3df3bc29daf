"""Values of classes of an author's own are kept as the plain ones that every database gives back."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Any
from uuid import UUID

from coordinator import Command, Row, Service, UnitOfWork
from coordinator.testing import LaneInMemory


class Status(StrEnum):
    OPEN = "open"


class Level(IntEnum):
    LOW = 1


class MyStr(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "another"


class MyInt(int):
    pass


class MyBytes(bytes):
    pass


class MyDatetime(datetime):
    pass


class MyDate(date):
    pass


class MyTime(time):
    pass


class MyTimedelta(timedelta):
    pass


class MyUuid(UUID):
    pass


class MyDecimal(Decimal):
    pass


class Kept(Row, table="kept", key="id", unique=("name",), index=("place",)):
    id: int
    name: str
    place: str = ""
    data: bytes = b""
    at_time: datetime | None = None
    day: date | None = None
    hour: time | None = None
    span: timedelta | None = None
    reference: UUID | None = None
    price: Decimal | None = None


class Keep(Command, type="kept.keep"):
    id: int


class Look(Command, type="kept.look"):
    id: int


NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ROW = Kept(
    id=MyInt(7),
    name=MyStr("ada"),
    place=Status.OPEN,
    data=MyBytes(b"x"),
    at_time=MyDatetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    day=MyDate(2026, 1, 2),
    hour=MyTime(3, 4),
    span=MyTimedelta(seconds=1),
    reference=MyUuid(int=5),
    price=MyDecimal("1.5"),
)


def test_a_batch_sees_what_the_database_would_give() -> None:
    seen: list[dict[str, Any]] = []
    service = Service("kept", models=[Kept])

    @service.handles(Keep)
    def keep(work: UnitOfWork, _command: Keep) -> None:
        work.add(ROW)

    @service.handles(Look)
    def look(work: UnitOfWork, command: Look) -> None:
        row = work.get(Kept, command.id)
        assert row is not None
        seen.append({name: getattr(row, name) for name in row.__struct_fields__})

    @service.handles(Both)
    def both(work: UnitOfWork, command: Both) -> None:
        keep(work, Keep(id=7))
        look(work, Look(id=7))

    lane = LaneInMemory(service)
    assert lane.apply(Both()).applied
    assert lane.apply(Look(id=7)).applied
    for row in seen:
        assert [type(value) for value in row.values()] == [
            *(int, str, str, bytes, datetime, date, time, timedelta, UUID, Decimal)
        ]
        assert (row["name"], row["place"], f"{row['place']}") == ("ada", "open", "open")
    assert seen[0] == seen[1]


class Both(Command, type="kept.both"):
    pass
