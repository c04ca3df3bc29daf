"""Its own routes and models, and one `Writes` in its lifespan: `uvicorn fastapi_shop.app:app`."""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated

from fastapi import FastAPI, Header, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from seats import AddSeat, BookSeat, Seat, seats

from coordinator import (
    BrokerUnavailable,
    CommandFailed,
    CommandPending,
    CommandRejected,
    CoordinatorError,
    InvalidCommand,
    NotFound,
    Unavailable,
    command_id_for,
)
from coordinator.client import WriteOptions, execute
from coordinator.reading import close_database, open_command_log, open_database, open_repository
from coordinator.settings import BrokerSettings, load
from coordinator.writing import RabbitWrites

log = logging.getLogger("uvicorn.error")

IdempotencyKey = Annotated[str, Header(min_length=1, max_length=255)]
"""Required: a client that got no answer repeats its request with the same key."""


class NewSeat(BaseModel):
    """A seat to sell."""

    place: Annotated[str, Field(pattern="^[A-Z0-9]{1,10}$")]


class Booking(BaseModel):
    """Who gets the seat."""

    holder: Annotated[str, Field(min_length=1, max_length=200)]


class ShownSeat(BaseModel):
    """A seat as clients see it."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    place: str
    holder: str | None


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Each worker process has connections of its own. It also starts while the broker is away, and answers 503."""
    database = open_database(os.environ["SEATS_READER_URL"])
    writes = RabbitWrites(
        load(BrokerSettings),
        confirm_timeout_s=5,
        wait_s=10,
        in_flight_max=1000,
        log=open_command_log(database),
        name="gateway.fastapi_shop",
    )
    await writes.start()
    with suppress(BrokerUnavailable):
        await writes.wait_connected()
    app.state.writes, app.state.rows = writes, open_repository(database, seats, Seat)
    yield
    await writes.close()
    await close_database(database)


app = FastAPI(lifespan=lifespan)


@app.post("/seats", status_code=201)
async def add_seat(request: Request, new: NewSeat, idempotency_key: IdempotencyKey) -> ShownSeat:
    """Put a seat up for sale."""
    return await _write(request, AddSeat(place=new.place), idempotency_key)


@app.post("/seats/{seat_id}/booking")
async def book_seat(request: Request, seat_id: int, booking: Booking, idempotency_key: IdempotencyKey) -> ShownSeat:
    """Give a seat to its holder."""
    return await _write(request, BookSeat(id=seat_id, holder=booking.holder), idempotency_key)


@app.get("/seats/{seat_id}")
async def show_seat(request: Request, seat_id: int) -> ShownSeat:
    """Reads do not go through the lane."""
    seat = await request.app.state.rows.get(seat_id)
    if seat is None:
        raise NotFound("seat_not_found", f"there is no seat {seat_id}")
    return ShownSeat.model_validate(seat)


async def _write(request: Request, command: AddSeat | BookSeat, idempotency_key: str) -> ShownSeat:
    options = WriteOptions(command_id=command_id_for(seats.name, idempotency_key))
    written = await execute(request.app.state.writes, command, Seat, options)
    return ShownSeat.model_validate(written.value)


@app.exception_handler(CoordinatorError)
async def answer(_request: Request, error: CoordinatorError) -> JSONResponse:
    """What became of the command, as a status and a code on which clients branch."""
    body = {"code": getattr(error, "code", "pending"), "message": str(error)}
    match error:
        case CommandPending():
            return JSONResponse({**body, "command_id": error.command_id}, 202)
        case InvalidCommand() | CommandRejected(code="idempotency_mismatch"):
            return JSONResponse(body, 422)
        case NotFound():
            return JSONResponse(body, 404)
        case CommandRejected():
            return JSONResponse(body, 404 if error.code.endswith("_not_found") else 409)
        case CommandFailed():
            return JSONResponse(body, 502)
        case Unavailable():
            # Its text names servers, which are nobody's business: it is for the log.
            log.warning("%s: %s", error.code, error)
            again = {"code": error.code, "message": "send the same request again, with the same key"}
            return JSONResponse(again, 503, {"Retry-After": "1"})
        case _:
            raise error
