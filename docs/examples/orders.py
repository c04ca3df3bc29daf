"""Orders and their lines: a line is found by its order and its number, and an order's total is the sum of its lines.

coordinator dev orders:orders
"""

from typing import Annotated

from msgspec import Meta, Struct

from coordinator import Command, Id, Name, Quantity, Rejected, Service, UnitOfWork, VersionedRow

orders = Service("orders")

Cents = Annotated[int, Meta(ge=0, le=100_000_000)]
LINES_MAX = 20


class Item(Struct, frozen=True):
    """What is ordered, and at which price a piece."""

    article: Name
    pieces: Quantity
    price_cents: Cents


@orders.row(is_public=True)
class Order(VersionedRow, table="orders", key="id"):
    """An order. Its lines are numbered 1, 2, 3 …; the number of a line that was taken out does not come again."""

    id: int
    customer: Name
    last_line: int = 0
    total_cents: int = 0
    is_closed: bool = False


@orders.row(is_public=True)
class Line(VersionedRow, table="lines", key=("order_id", "line")):
    """One line of an order."""

    order_id: int
    line: int
    item: Item

    @property
    def amount_cents(self) -> int:
        return self.item.pieces * self.item.price_cents


class PlaceOrder(Command, type="orders.place"):
    """Place an order with its first lines."""

    customer: Name
    items: Annotated[tuple[Item, ...], Meta(min_length=1, max_length=LINES_MAX)]


class AddLine(Command, type="orders.add_line"):
    """Add a line. Rejected: `order_not_found`, `order_closed`, `too_many_lines`."""

    order_id: Id
    item: Item


class ChangeLine(Command, type="orders.change_line"):
    """Order more pieces, or fewer. Rejected: `order_not_found`, `order_closed`, `line_not_found`."""

    order_id: Id
    line: Id
    pieces: Quantity


class TakeOut(Command, type="orders.take_out"):
    """Take a line out. Rejected: `order_not_found`, `order_closed`, `line_not_found`."""

    order_id: Id
    line: Id


class CloseOrder(Command, type="orders.close"):
    """Close an order: it does not change any more. Rejected: `order_not_found`, `order_closed`, `order_empty`."""

    order_id: Id


@orders.handles(PlaceOrder)
def place(work: UnitOfWork, command: PlaceOrder) -> Order:
    order_id = work.next_id(Order)
    lines = [Line(order_id=order_id, line=line, item=item) for line, item in enumerate(command.items, 1)]
    total_cents = sum(line.amount_cents for line in lines)
    order = work.add(Order(id=order_id, customer=command.customer, last_line=len(lines), total_cents=total_cents))
    for line in lines:
        work.add(line)
    return order


@orders.handles(
    AddLine,
    target=lambda command: Order.at(command.order_id),
    reads=lambda command: [Line.where(order_id=command.order_id, limit=LINES_MAX)],
)
def add_line(work: UnitOfWork, command: AddLine) -> Order:
    order = _open_order(work, command.order_id)
    # The first column of a key of two is an index.
    if len(work.select(Line, order_id=order.id, limit=LINES_MAX)) == LINES_MAX:
        raise Rejected("too_many_lines", f"an order has at most {LINES_MAX} lines")
    line = work.add(Line(order_id=order.id, line=order.last_line + 1, item=command.item))
    return work.save(order.replace(last_line=line.line, total_cents=order.total_cents + line.amount_cents))


@orders.handles(
    ChangeLine,
    target=lambda command: Line.at(command.order_id, command.line),
    reads=lambda command: [Order.at(command.order_id)],
)
def change_line(work: UnitOfWork, command: ChangeLine) -> Line:
    order = _open_order(work, command.order_id)
    old = _line(work, order, command.line)
    new = work.save(old.replace(item=Item(old.item.article, command.pieces, old.item.price_cents)))
    work.save(order.replace(total_cents=order.total_cents - old.amount_cents + new.amount_cents))
    return new


@orders.handles(
    TakeOut,
    target=lambda command: Line.at(command.order_id, command.line),
    reads=lambda command: [Order.at(command.order_id)],
)
def take_out(work: UnitOfWork, command: TakeOut) -> Order:
    order = _open_order(work, command.order_id)
    line = _line(work, order, command.line)
    work.remove(line)
    return work.save(order.replace(total_cents=order.total_cents - line.amount_cents))


@orders.handles(CloseOrder, target=lambda command: Order.at(command.order_id))
def close(work: UnitOfWork, command: CloseOrder) -> Order:
    order = _open_order(work, command.order_id)
    if not work.exists(Line, order_id=order.id):
        raise Rejected("order_empty", f"order {order.id} has no lines")
    return work.save(order.replace(is_closed=True))


def _open_order(work: UnitOfWork, order_id: int) -> Order:
    order = work.get(Order, order_id)
    if order is None:
        raise Rejected("order_not_found", f"there is no order {order_id}")
    if order.is_closed:
        raise Rejected("order_closed", f"order {order_id} is closed")
    return order


def _line(work: UnitOfWork, order: Order, number: int) -> Line:
    line = work.get(Line, (order.id, number))
    if line is None:
        raise Rejected("line_not_found", f"order {order.id} has no line {number}")
    return line
