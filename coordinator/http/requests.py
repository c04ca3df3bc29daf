"""Reading requests: path ids, query, command and options are checked before anything is issued."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Final, Literal, TypeVar, get_args, get_origin

import msgspec
from aiohttp import web
from msgspec import Meta, Raw, Struct

from coordinator.client.writes import SentArguments, WriteOptions, Written
from coordinator.http.bodies import JSON_TYPES, PATCH_TYPES, read_body
from coordinator.http.command_ids import MISMATCH, ids_of_keys, of_other_content
from coordinator.http.headers import Preferences, command_version, expected_version, idempotency_key, preferences
from coordinator.http.keys import CONTEXT, UPGRADES
from coordinator.http.problems import RequestRefused
from coordinator.http.receipts import RECEIPTS
from coordinator.http.shown_results import SHOWN_RESULTS
from coordinator.http.waiting_requests import WAITING_REQUESTS
from coordinator.service.commands import INTEGER_MAX, Command, check_storable, field_at_fault, parse, repeated
from coordinator.service.errors import CommandFailed, CommandRejected, InvalidCommand
from coordinator.service.ids import is_key_id, is_nobodys_id, is_system_id, is_uuid, new_command_id
from coordinator.service.paging import PAGE_DEFAULT, PAGE_MAX
from coordinator.service.repeated_names import repeated_name
from coordinator.service.upgrades import UNKNOWN_VERSION, of_unsaid, parse_sent, parse_unsaid

_MEMBERS = msgspec.json.Decoder(dict[str, Any])
_RAW_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ID = re.compile(r"[1-9][0-9]{0,15}")
_JSON_SPACES: Final = b" \t\r\n"
_DIGITS = re.compile(r"0|[1-9][0-9]*")
_DIGITS_MAX = len(str(INTEGER_MAX))

C = TypeVar("C", bound=Command)
Q = TypeVar("Q", bound=Struct)
T = TypeVar("T")


class NoQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """For routes without query parameters."""


class PageQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which part of a list."""

    after: Annotated[int, Meta(ge=0, le=INTEGER_MAX)] = 0
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = PAGE_DEFAULT


def path_id(request: web.Request, name: str, code: str) -> int:
    """An id in the path: an integer from 1 to 2^53-1, without leading zeros. Raises RequestRefused (404).

    `name` is that of its place in the route, `{id}`, and `code` that of the 404: no row has what is no id.
    """
    text = request.match_info[name]
    if not _ID.fullmatch(text) or int(text) > INTEGER_MAX:
        raise RequestRefused(404, code, f"nothing has the id {text[:40]!a}: ids are integers from 1 to 2^53-1")
    return int(text)


def read_query(request: web.Request, model: type[Q]) -> Q:
    """The query parameters: integers where the model says `int`, and texts.

    Raises RequestRefused (400), which names the one at fault.
    """
    if not request.rel_url.raw_query_string and not _has_required(model):
        return model()
    given: dict[str, int | str] = {}
    integers = _integers_of(model)
    for name, text in request.query.items():
        shown = f"{name[:40]!a}"
        if name not in model.__struct_fields__:
            known = ", ".join(model.__struct_fields__) or "none"
            raise RequestRefused(
                400, "invalid_query", f"no query parameter {shown} here; there are: {known}", field=name
            )
        if name in given:
            raise RequestRefused(400, "invalid_query", f"the query parameter {name} is given twice", field=name)
        if name not in integers:
            given[name] = text
            continue
        if not _DIGITS.fullmatch(text):
            raise RequestRefused(
                400,
                "invalid_query",
                f"{name} must be a decimal integer without a sign or leading zeros, not {text[:40]!a}",
                field=name,
            )
        # A longer one is too large for every parameter; the limit of this one is in the answer.
        given[name] = int(text) if len(text) <= _DIGITS_MAX else INTEGER_MAX + 1
    try:
        return msgspec.convert(given, model)
    except msgspec.ValidationError as error:
        raise RequestRefused(400, "invalid_query", str(error), field=field_at_fault(error)) from None


@cache
def _has_required(model: type[Struct]) -> bool:
    return any(each.required for each in msgspec.structs.fields(model))


@cache
def _integers_of(model: type[Struct]) -> frozenset[str]:
    """The fields that are integers."""
    return frozenset(each.name for each in msgspec.structs.fields(model) if _is_integer(each.type))


def _is_integer(kind: Any) -> bool:
    return kind is int or (get_origin(kind) is not Literal and any(map(_is_integer, get_args(kind))))


async def read_command(request: web.Request, model: type[C], path: Mapping[str, int | str] | None = None) -> C:
    """A command made from the body and the ids and texts of the path. Raises RequestRefused and InvalidCommand.

    A body must not have the fields that are in the path.
    """
    read_query(request, NoQuery)
    body = await read_body(request, PATCH_TYPES if request.method == "PATCH" else JSON_TYPES)
    if "Command-Version" in request.headers:
        _check_members(body, path or {})
        return _parsed_as_said(request, model, msgspec.json.decode(body, type=dict[str, Raw]), path or {})
    try:
        return _parsed_as_latest(request, model, body, path)
    except InvalidCommand as error:
        raise of_unsaid(error, model, request.app[UPGRADES].get(model.type, ()), "Command-Version") from None


def _parsed_as_latest(request: web.Request, model: type[C], body: bytes, path: Mapping[str, int | str] | None) -> C:
    _check_path(model, path or {})
    # The type first: a large body that is none of its commands is refused at its first wrong value. Only what passes is
    # read once more, for its names.
    try:
        command = parse(model, _with_ids(body, path) if path else body)
    except InvalidCommand as error:
        if error.code != "invalid_arguments" or error.field in (path or ()):
            # Other words for what is no object at all, or names what is in the path.
            _check_members(body, path or {})
        raise
    _check_members(body, path or {})
    check_storable(command, body)
    request[CONTEXT].parsed = command
    return command


def _with_ids(body: bytes, path: Mapping[str, int | str]) -> bytes:
    """The members of the path before those of a body. Of what is no object it makes what is none, or raises."""
    before, brace, members = body.partition(b"{")
    if not brace or before.strip(_JSON_SPACES):
        _check_members(body, path)
    is_empty = members.lstrip(_JSON_SPACES).startswith(b"}")
    return msgspec.json.encode(path)[:-1] + (b"" if is_empty else b",") + members


def _check_path(model: type[Command], path: Mapping[str, int | str]) -> None:
    """Raises TypeError for a route that is not of this command, or of an older version: no client can mend it."""
    if unknown := [name for name in path if name not in model.__struct_encode_fields__]:
        raise TypeError(f"this route gives {model.__name__} the argument {unknown[0]!r}, which it does not have")


def _check_members(body: bytes, path: Mapping[str, int | str]) -> None:
    """Raises InvalidCommand for what is no JSON object, has a name twice, or one that the path has."""
    given = _object(body)
    for name in path:
        if name in given:
            raise InvalidCommand(f"unknown field `{name}`: the path names it", code="invalid_arguments", field=name)


def path_command(request: web.Request, model: type[C], path: Mapping[str, int | str]) -> C:
    """A command made from the ids of the path alone. Raises RequestRefused and InvalidCommand."""
    read_query(request, NoQuery)
    if "Command-Version" in request.headers:
        return _parsed_as_said(request, model, {}, path)
    _check_path(model, path)
    command = parse_unsaid(model, dict(path), request.app[UPGRADES].get(model.type, ()), said_by="Command-Version")
    check_storable(command, b"")
    request[CONTEXT].parsed = command
    return command


def _parsed_as_said(request: web.Request, model: type[C], body: dict[str, Raw], path: Mapping[str, int | str]) -> C:
    """A command made from arguments of the version that the request says. Its arguments stay as they were sent."""
    version = command_version(request.headers.getall("Command-Version"))
    arguments = msgspec.json.encode({**body, **path})
    try:
        command = parse_sent(model, arguments, version, request.app[UPGRADES].get(model.type, ()))
    except InvalidCommand as error:
        if error.code != UNKNOWN_VERSION:
            raise
        raise RequestRefused(400, "unknown_command_version", str(error), field="Command-Version") from None
    check_storable(command, arguments)
    context = request[CONTEXT]
    context.parsed, context.sent = command, SentArguments(arguments, None if version == 1 else version)
    return command


async def issue(
    request: web.Request, method: Callable[[C, WriteOptions], Awaitable[Written[T]]], command: C
) -> Written[T]:
    """Call a service's method as the request's headers ask. Raises its errors, RequestRefused and Overloaded.

    What is returned says what of the result may be shown to whoever asks: `written_response` shows no more.
    """
    context = request[CONTEXT]
    headers = request.headers
    key = idempotency_key(headers.getall("Idempotency-Key", ()))
    version = expected_version(headers.getall("If-Match", ()))
    context.preferences = preferences(headers.getall("Prefer", ()))
    given_id = command_id_asked(headers.getall("Command-Id", ()))
    if key is not None and given_id is not None:
        text = "Idempotency-Key and Command-Id both name the command: send one of them"
        raise RequestRefused(400, "invalid_header", text, field="Command-Id")
    if given_id is not None and context.authentication is not None and context.principal is None:
        _check_nobodys(given_id)
    context.is_repeatable = key is not None or given_id is not None
    wait_s = granted_wait_s(context.preferences, context.settings.wait_s)
    lane = context.targets.of(command.lane())
    with request.app[WAITING_REQUESTS].for_outcome(wait_s, share=context.share):
        # Make the id here, so that the answer can give it whatever happens to the command.
        if given_id is not None:
            command_id = given_id
        elif key is not None:
            (command_id,) = await ids_of_keys(request, ((lane, key),))
        else:
            command_id = new_command_id()
        options = WriteOptions(
            idempotency_key=key,
            command_id=command_id,
            expected_version=version,
            wait_s=wait_s,
            traceparent=context.trace.traceparent,
            tracestate=context.trace.tracestate,
            parsed=context.parsed,
            sent=context.sent,
        )
        context.stages.command_id = command_id
        context.stages.end("validate")
        receipts = request.app[RECEIPTS]
        receipts.keep(command_id, lane, context.principal, context.stages, context.stages)
        try:
            written = await method(command, options)
        except (CommandRejected, CommandFailed) as error:
            if error.sequence is not None:
                context.settled_at(lane, error.sequence)
            if error.replayed or error.code == MISMATCH:
                receipts.withdraw(command_id, context.principal, context.stages)
            if key is None or error.code != MISMATCH:
                raise
            raise CommandRejected(error.command_id, error.code, of_other_content(key, str(error))) from None
    if written.replayed:
        receipts.withdraw(command_id, context.principal, context.stages)
    context.settled_at(lane, written.sequence)
    return request.app[SHOWN_RESULTS].of_written(request, command.type, written)


def _check_nobodys(command_id: str) -> None:
    """Whoever is not known gives no command an id that may stand for somebody's key. Raises RequestRefused (400)."""
    if is_key_id(command_id):
        text = "Command-Id must not be of version 5 here, which stands for an idempotency key: send the key"
        raise RequestRefused(400, "invalid_header", text, field="Command-Id")


def command_id_asked(values: Sequence[str]) -> str | None:
    """The id of `Command-Id`: a client repeats a command by it, after an answer that could not give the outcome.

    Raises RequestRefused (400), also for an id of the form that is the system's own.
    """
    if not values:
        return None
    value = values[0].strip(" \t")
    if len(values) > 1 or not is_uuid(value) or is_system_id(value) or is_nobodys_id(value.lower()):
        text = "Command-Id must be given once, as a UUID that is neither of version 8 nor nil (zeros, or ones)"
        text = f"{text}, not {value[:40]!a}"
        raise RequestRefused(400, "invalid_header", text, field="Command-Id")
    return value.lower()


def granted_wait_s(asked: Preferences, wait_s_max: float) -> float:
    """How many seconds to wait for an outcome: as the client asks, at most `wait_s_max`."""
    if asked.wait_s is not None:
        return min(float(asked.wait_s), wait_s_max)
    return 0.0 if asked.respond_async else wait_s_max


def _object(body: bytes) -> dict[str, Any]:
    """The members of an object of JSON text, which has no name twice.

    A command is read from the text itself, as at every door: only its type says which number is to stay exact.
    """
    again: bytes | None = None
    given: dict[str, Any]
    try:
        try:
            given = _MEMBERS.decode(body)
            again = msgspec.json.encode(given)
        except msgspec.ValidationError:
            # It is no object, or has a number that no float can be, and a Decimal perhaps can.
            given = _RAW_MEMBERS.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidCommand(str(error), code="invalid_arguments") from None
    except UnicodeDecodeError as error:
        at = _not_utf8_at(body, error)
        text = f"the body is not UTF-8: its byte {at} (the first is 0) cannot be read"
        raise InvalidCommand(text, code="malformed_json", field="body") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidCommand(f"the body is not valid JSON: {error}", code="malformed_json", field="body") from None
    if (name := repeated_name(body, again)) is not None:
        raise repeated(name, "body")
    return given


def _not_utf8_at(body: bytes, error: UnicodeDecodeError) -> int:
    """The place in the body: `error` counts from the beginning of the text that it is in."""
    try:
        body.decode()
    except UnicodeDecodeError as whole:
        return whole.start
    return error.start
