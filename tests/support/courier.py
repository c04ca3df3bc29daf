"""A service with effects, for the tests: parcels that a courier takes away."""

import asyncio

import msgspec

from coordinator.service.commands import Command, Id
from coordinator.service.errors import Rejected
from coordinator.service.outside_calls import Call, Effect, EffectHandler, EffectRetry, GivenUp
from coordinator.service.rows import VersionedRow
from coordinator.service.service import Service
from coordinator.service.unit_of_work import Handler, UnitOfWork


class Parcel(VersionedRow, table="parcels", key="id"):
    id: int
    state: str = "waiting"
    results: int = 0


class SendParcel(Command, type="courier.send"):
    pass


class ParcelResult(Command, type="courier.result"):
    id: Id
    state: str


class TakeAway(Effect, type="courier.take_away"):
    id: Id


def send_parcel(work: UnitOfWork, command: SendParcel) -> Parcel:
    parcel = work.add(Parcel(id=work.next_id("parcels")))
    work.emit(TakeAway(id=parcel.id))
    return parcel


def parcel_result(work: UnitOfWork, command: ParcelResult) -> Parcel:
    parcel = work.get(Parcel, command.id)
    if parcel is None:
        raise Rejected("parcel_not_found", f"there is no parcel {command.id}")
    return work.save(msgspec.structs.replace(parcel, state=command.state, results=parcel.results + 1))


class Courier:
    """Implements `Effects`: fails as often as `failures` says, then takes parcels away, each key once.

    Asked what it knows, it raises what `look_ups` has, one after another, and then says what it took.
    """

    def __init__(
        self, failures: list[EffectRetry | Exception], look_ups: list[EffectRetry | Exception] | None = None
    ) -> None:
        self.failures = failures
        self.look_ups = look_ups or []
        self.calls: list[Call] = []
        self.looked_up = 0
        self.taken: set[str] = set()
        self.arrived = asyncio.Event()
        self.may_go = asyncio.Event()
        self.may_go.set()
        self.is_closed = False

    @property
    def handlers(self) -> tuple[EffectHandler[TakeAway], ...]:
        return (EffectHandler(TakeAway, self._take_away, self._give_up, self._look_up),)

    @property
    def keys(self) -> list[str]:
        """Of the calls, in their order."""
        return [call.key for call in self.calls]

    async def close(self) -> None:
        self.is_closed = True

    async def _look_up(self, effect: TakeAway, call: Call) -> Command | None:
        self.looked_up += 1
        if self.look_ups:
            raise self.look_ups.pop(0)
        return ParcelResult(id=effect.id, state="taken") if call.key in self.taken else None

    async def _take_away(self, effect: TakeAway, call: Call) -> Command:
        self.calls.append(call)
        self.arrived.set()
        await self.may_go.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.taken.add(call.key)
        return ParcelResult(id=effect.id, state="taken")

    def _give_up(self, effect: TakeAway, given_up: GivenUp) -> Command:
        return ParcelResult(id=effect.id, state="unsure" if given_up.may_have_happened else "left")


def service_of(courier: Courier) -> Service:
    return Service(
        name="courier",
        models=(Parcel,),
        handlers=(
            Handler(SendParcel, send_parcel),
            Handler(ParcelResult, parcel_result, reads=lambda command: (Parcel.at(command.id),)),
        ),
        effects=lambda: courier,
    )
