"""Blocking routes in threads and processes: `gunicorn --config python:flask_shop.gunicorn flask_shop.app:app`."""

import os
from typing import Any

import psycopg
from flask import Flask, request
from flask.typing import ResponseReturnValue
from psycopg.rows import dict_row
from seats import AddSeat, BookSeat, Seat, seats

from coordinator import (
    CommandFailed,
    CommandPending,
    CommandRejected,
    CoordinatorError,
    InvalidCommand,
    NotFound,
    Unavailable,
    command_id_for,
)
from coordinator.client import BlockingWrites, WriteOptions
from coordinator.settings import BrokerSettings, load
from coordinator.writing import RabbitWrites


def connect() -> RabbitWrites:
    """The asynchronous writes, which `WRITES` makes when it is opened."""
    return RabbitWrites(
        load(BrokerSettings),
        confirm_timeout_s=5,
        wait_s=10,
        in_flight_max=1000,
        log=None,
        name="gateway.flask_shop",
    )


WRITES = BlockingWrites(connect, connect_timeout_s=0)
"""Opened by each worker process, after the fork (gunicorn.py). It also opens while the broker is away."""

app = Flask(__name__)


@app.post("/seats")
def add_seat() -> ResponseReturnValue:
    """Put a seat up for sale."""
    return _write(AddSeat(place=_field("place"))), 201


@app.post("/seats/<int:seat_id>/booking")
def book_seat(seat_id: int) -> ResponseReturnValue:
    """Give a seat to its holder."""
    return _write(BookSeat(id=seat_id, holder=_field("holder")))


@app.get("/seats/<int:seat_id>")
def show_seat(seat_id: int) -> ResponseReturnValue:
    """Reads do not go through the lane: use what you have, such as the models of your ORM."""
    with psycopg.connect(os.environ["SEATS_READER_URL"], row_factory=dict_row) as connection:
        seat = connection.execute("SELECT id, place, holder FROM seats WHERE id = %s", [seat_id]).fetchone()
    if seat is None:
        raise NotFound("seat_not_found", f"there is no seat {seat_id}")
    return seat


def _field(name: str) -> Any:
    """A field of the body. `execute` checks whether it is what the command takes."""
    body = request.get_json()
    if not isinstance(body, dict) or name not in body:
        raise InvalidCommand(f"the body must be an object with `{name}`", field=name)
    return body[name]


def _write(command: AddSeat | BookSeat) -> dict[str, Any]:
    key = request.headers.get("Idempotency-Key", "")
    if not key:
        raise InvalidCommand("send an Idempotency-Key, and repeat the request with it if you get no answer")
    options = WriteOptions(command_id=command_id_for(seats.name, key))
    seat = WRITES.execute(command, Seat, options).value
    return {"id": seat.id, "place": seat.place, "holder": seat.holder}


@app.errorhandler(CoordinatorError)
def answer(error: CoordinatorError) -> ResponseReturnValue:
    """What became of the command, as a status and a code on which clients branch."""
    body = {"code": getattr(error, "code", "pending"), "message": str(error)}
    match error:
        case CommandPending():
            return {**body, "command_id": error.command_id}, 202
        case InvalidCommand() | CommandRejected(code="idempotency_mismatch"):
            return body, 422
        case NotFound():
            return body, 404
        case CommandRejected():
            return body, 404 if error.code.endswith("_not_found") else 409
        case CommandFailed():
            return body, 502
        case Unavailable():
            # Its text names servers, which are nobody's business: it is for the log.
            app.logger.warning("%s: %s", error.code, error)
            again = {"code": error.code, "message": "send the same request again, with the same key"}
            return again, 503, {"Retry-After": "1"}
        case _:
            raise error
