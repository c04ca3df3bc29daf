"""A service whose row has a column of each type, to be written and read through a made gateway."""

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from coordinator import Command, Digits, Service, UnitOfWork, VersionedRow

borders = Service("borders")


class Colour(StrEnum):
    RED = "red"
    QUOTED = "Ünder 'quotes' \\"


@borders.row(is_public=True)
class Value(VersionedRow, table="kept", key="id"):
    id: int
    number: int | None = None
    text: Annotated[str, Meta(max_length=20)] | None = None
    long: str | None = None
    data: bytes | None = None
    flag: bool | None = None
    ratio: float | None = None
    price: Annotated[Decimal, Digits(12, 2)] | None = None
    amount: Decimal | None = None
    day: date | None = None
    hour: time | None = None
    span: timedelta | None = None
    seen: datetime | None = None
    reference: UUID | None = None
    colour: Colour | None = None
    kind: Literal["a", "b"] | None = None
    document: dict[str, Any] | None = None
    prices: list[Decimal] | None = None


class Put(Command, type="borders.put"):
    id: int
    number: int | None = None
    text: str | None = None
    long: str | None = None
    data: bytes | None = None
    flag: bool | None = None
    ratio: float | None = None
    price: Decimal | None = None
    amount: Decimal | None = None
    day: date | None = None
    hour: time | None = None
    span: timedelta | None = None
    seen: datetime | None = None
    reference: UUID | None = None
    colour: Colour | None = None
    kind: Literal["a", "b"] | None = None
    document: dict[str, Any] | None = None
    prices: list[Decimal] | None = None


@borders.handles(Put, target=lambda command: Value.at(command.id))
def put(work: UnitOfWork, command: Put) -> Value:
    fields = msgspec.structs.asdict(command)
    row = work.get(Value, command.id)
    return work.add(Value(**fields)) if row is None else work.save(msgspec.structs.replace(row, **fields))
