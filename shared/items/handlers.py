"""How the items lane applies its commands."""

import msgspec
from msgspec import UNSET

from coordinator import Handler, Ref, Rejected, Row, UnitOfWork, anybody, normalized
from shared.items.commands import CreateItem, Quote, QuoteItem, ReleaseItem, ReserveItem, UpdateItem
from shared.items.model import Item, Reservation
from shared.items.rules import STOCK


def create_item(work: UnitOfWork, command: CreateItem) -> Item:
    return work.add(
        Item(
            id=work.next_id("items"),
            name=normalized(command.name),
            price=command.price,
            currency=command.currency,
            stock=command.stock,
            created_at=work.now,
        )
    )


def update_item(work: UnitOfWork, command: UpdateItem) -> Item:
    item = _item(work, command.id)
    return work.save(
        msgspec.structs.replace(
            item,
            name=item.name if command.name is UNSET else normalized(command.name),
            price=item.price if command.price is UNSET else command.price,
            currency=item.currency if command.currency is UNSET else command.currency,
            stock=item.stock if command.stock is UNSET else command.stock,
        )
    )


def quote_item(work: UnitOfWork, command: QuoteItem) -> Quote:
    item = _item(work, command.id)
    return Quote(item_id=item.id, price=item.price, currency=item.currency, version=item.version)


def reserve_item(work: UnitOfWork, command: ReserveItem) -> Reservation:
    item = _item(work, command.id)
    if command.price not in (UNSET, item.price) or command.currency not in (UNSET, item.currency):
        raise Rejected("price_changed", f"item {item.id} costs {item.price} {item.currency} now")
    work.save(item.taken(command.quantity))
    return work.add(
        Reservation(id=work.next_id("reservations"), item_id=command.id, quantity=command.quantity),
    )


def release_item(work: UnitOfWork, command: ReleaseItem) -> None:
    item = _item(work, command.id)
    reservation = work.get(Reservation, command.reservation_id)
    if reservation is None or reservation.item_id != command.id:
        raise Rejected(
            "reservation_not_found",
            f"item {command.id} has no reservation {command.reservation_id} to give back",
        )
    work.remove(reservation)
    work.save(item.given_back(reservation.quantity))


def _item(work: UnitOfWork, item_id: int) -> Item:
    item = work.get(Item, item_id)
    if item is None:
        raise Rejected("item_not_found", f"there is no item {item_id}")
    return item


def _named(command: UpdateItem | QuoteItem | ReserveItem | ReleaseItem) -> Ref[Row]:
    return Item.at(command.id)


HANDLERS = (
    Handler(CreateItem, create_item, allow=STOCK),
    Handler(UpdateItem, update_item, target=_named, allow=STOCK),
    Handler(QuoteItem, quote_item, reads=lambda command: (_named(command),), allow=anybody),
    Handler(ReserveItem, reserve_item, target=_named, allow=STOCK),
    Handler(
        ReleaseItem,
        release_item,
        reads=lambda command: (_named(command), Reservation.at(command.reservation_id)),
        allow=STOCK,
    ),
)
