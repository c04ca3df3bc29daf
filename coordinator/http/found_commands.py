"""Finding a settled command in the logs of the lanes that a gateway serves."""

from typing import Final

from aiohttp import web

from coordinator.client.command_log import CommandLogs
from coordinator.client.proved_places import NotProved
from coordinator.client.recency import need_place
from coordinator.http.keys import CONTEXT, READ_DATABASES
from coordinator.http.waiting_requests import room_for_read
from coordinator.stores.lane_tables import LogEntry
from coordinator.transports.port import CommandTransport

COMMAND_LOGS: Final = web.AppKey("COMMAND_LOGS", CommandLogs)
PRIMARY_LOGS: Final[web.AppKey[CommandLogs | None]] = web.AppKey("PRIMARY_LOGS")
"""Those at the servers to which lanes write, where others are read; None: the same ones are."""


async def find_command(
    request: web.Request, transport: CommandTransport, command_id: str, *, is_pending: bool | None
) -> list[tuple[str, LogEntry]]:
    """Each lane that has settled the command, and its entry; none while nothing is known but that it `is_pending` here.

    What is read may be a replica, which lags. So a command that it does not have is looked for once more: as recent as
    its outcome, where this gateway has seen that, or else at the primary, if there is one. A client who is told that
    there is no such command may issue it again under another id.
    Raises DatabaseUnavailable, NotProved, and NotRecent where the gateway has seen the outcome.
    """
    logs = request.app[COMMAND_LOGS]
    try:
        found = await logs.find(command_id)
    except NotProved:
        if not is_pending:
            raise
        return []
    if found or is_pending:
        return found
    place, databases = transport.settled_place(command_id), request.app[READ_DATABASES]
    if place is None:
        primary = request.app[PRIMARY_LOGS]
        return [] if primary is None else await primary.find(command_id)
    wait_s = request[CONTEXT].settings.read_after_wait_ms / 1000
    need_place(*place, databases, wait_s, room_for_read(request))
    return await logs.find(command_id)
