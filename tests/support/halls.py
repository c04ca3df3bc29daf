"""A service that keeps each tenant's data in a lane of its own, and one that tenants share."""

from coordinator import Command, Continuation, Service, UnitOfWork, VersionedRow
from coordinator.registry import App

halls = Service("halls")
posters = Service("posters")


@halls.row(is_public=True)
class Guest(VersionedRow, table="guests", key="id"):
    id: int
    name: str


@posters.row
class Poster(VersionedRow, table="posters", key="id"):
    id: int
    text: str


class LetIn(Command, type="halls.let_in"):
    name: str


class LetInLater(Command, type="halls.let_in_later"):
    name: str


class HangUp(Command, type="posters.hang_up"):
    text: str


class Invite(Command, type="halls.invite"):
    """A poster, of whose hanging up the hall may want to hear."""

    text: str
    wants_answer: bool = False


class HungUp(Continuation, type="halls.hung_up"):
    pass


@halls.handles(LetIn)
def let_in(work: UnitOfWork, command: LetIn) -> Guest:
    return work.add(Guest(id=work.next_id(Guest), name=command.name))


@halls.handles(LetInLater)
def let_in_later(work: UnitOfWork, command: LetInLater) -> None:
    work.emit(LetIn(name=command.name))


@halls.handles(Invite)
def invite(work: UnitOfWork, command: Invite) -> None:
    work.emit(HangUp(text=command.text), continuation=HungUp if command.wants_answer else None)


@halls.handles(HungUp, is_internal=True)
def hung_up(work: UnitOfWork, command: HungUp) -> None:
    work.add(Guest(id=work.next_id(Guest), name="bill-sticker"))


@posters.handles(HangUp)
def hang_up(work: UnitOfWork, command: HangUp) -> Poster:
    return work.add(Poster(id=work.next_id(Poster), text=command.text))


APP = App(
    services={"halls": f"{__name__}:halls", "posters": f"{__name__}:posters"}, tenants={"halls": ("acme", "bolt")}
)
