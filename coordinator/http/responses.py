"""Responses: representations with entity tags, written rows, accepted commands."""

from http import HTTPStatus
from typing import Any, Final

from aiohttp import web
from msgspec import UNSET, Struct

from coordinator.client.writes import Written
from coordinator.http.headers import Preferences, entity_tag, is_unchanged
from coordinator.service.json_text import to_json
from coordinator.service.rows import VersionedRow

JSON: Final = "application/json"


class Accepted(Struct, frozen=True):
    """A command that is safe and not settled yet."""

    command_id: str
    status: str = "pending"


def json_response(value: Any, *, status: int = 200) -> web.Response:
    """Any value that msgspec encodes."""
    return web.Response(status=status, body=to_json(value), content_type=JSON)


def representation(request: web.Request, row: VersionedRow) -> web.Response:
    """A row with its entity tag, or 304 when the client has this version."""
    if is_unchanged(request.headers.getall("If-None-Match", ()), row.version):
        response = web.Response(status=HTTPStatus.NOT_MODIFIED)
    else:
        response = json_response(row)
    response.headers["ETag"] = entity_tag(row.version)
    return response


def written_response(
    written: Written[Any],
    *,
    status: int = 200,
    location: str | None = None,
    content_location: str | None = None,
) -> web.Response:
    """The target as an applied command left it; 204 where no row is left to show.

    `location` is the path of a new row; `content_location` that of the shown row, if it is not the request's. Of a row
    that is not for whoever asks there is the key alone, or null: no tag, and no path at which it could be read.
    """
    value = written.value if written.shown is UNSET else written.shown
    if written.value is None:
        response = web.Response(status=HTTPStatus.NO_CONTENT)
    else:
        response = json_response(value, status=status)
    if isinstance(value, VersionedRow):
        response.headers["ETag"] = entity_tag(value.version)
    if location is not None:
        response.headers["Location"] = location
    if content_location is not None and written.shown is UNSET:
        response.headers["Content-Location"] = content_location
    if written.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return response


def accepted_response(command_id: str, asked: Preferences, wait_s_max: float) -> web.Response:
    """202: the outcome will be at `Location`. A wait longer than `wait_s_max` is not granted."""
    response = json_response(Accepted(command_id), status=HTTPStatus.ACCEPTED)
    response.headers["Location"] = command_location(command_id)
    note_preferences(response, asked, wait_s_max)
    return response


def command_location(command_id: str) -> str:
    """The path of a command's outcome, once it is settled."""
    return f"/commands/{command_id}"


def note_preferences(response: web.Response, asked: Preferences, wait_s_max: float) -> None:
    """Say which preferences were applied. A wait longer than `wait_s_max` is not granted."""
    applied = []
    if asked.respond_async:
        applied.append("respond-async")
    if asked.wait_s is not None and asked.wait_s <= wait_s_max:
        applied.append(f"wait={asked.wait_s}")
    if applied:
        response.headers["Preference-Applied"] = ", ".join(applied)
