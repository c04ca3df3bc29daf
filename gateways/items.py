"""Items and their reservations over REST."""

from typing import Final

from aiohttp import web

from coordinator import Page
from coordinator.cache import CacheConsistentLog
from coordinator.http import (
    CHECKS,
    Check,
    Dependencies,
    Gateway,
    NoQuery,
    PageQuery,
    described,
    issue,
    json_response,
    open_to_all,
    path_command,
    path_id,
    read_command,
    read_query,
    representation,
    written_response,
)
from coordinator.reading import Database, open_command_log
from coordinator.settings import CacheSettings, load
from gateways.problem_codes import PROBLEMS
from shared.items import SERVICE
from shared.items.cache import open_cache
from shared.items.commands import CreateItem, ReleaseItem, ReserveItem, UpdateItem
from shared.items.kinds import open_items
from shared.items.model import Item
from shared.items.service import CacheResult, ItemService

ITEMS: Final = web.AppKey("ITEMS", ItemService)

CACHE_STATUS: Final[dict[CacheResult, str]] = {
    "hit": "write-coordinator-redis; hit",
    "stored": "write-coordinator-redis; fwd=miss; stored",
    "miss": "write-coordinator-redis; fwd=miss",
    "bypass": "write-coordinator-redis; fwd=bypass",
}
"""`Cache-Status` (RFC 9211). An item that was missing is offered to the cache, which is `stored`."""

routes = web.RouteTableDef()


@routes.post("/items")
@described(
    command=CreateItem, example={"name": "seat 7A", "price": 9900, "currency": "EUR", "stock": 1}, statuses=(201,)
)
async def create_item(request: web.Request) -> web.Response:
    command = await read_command(request, CreateItem)
    written = await issue(request, request.app[ITEMS].create_item, command)
    return written_response(written, status=201, location=f"/items/{written.value.id}")


@routes.get("/items")
@open_to_all
@described("All items, in pages, from the database.", query=PageQuery, answer=Page[Item], reads_rows=True)
async def list_items(request: web.Request) -> web.Response:
    query = read_query(request, PageQuery)
    return json_response(await request.app[ITEMS].list_items(query.after, query.limit))


@routes.get("/items/{id}")
@open_to_all
@described(
    "One item, from the cache where it is there: at least as every write that was answered before left it.",
    answer=Item,
    reads_rows=True,
    answer_headers=("Cache-Status",),
    codes={"item_not_found": 404},
)
async def get_item(request: web.Request) -> web.Response:
    read_query(request, NoQuery)
    item, cache_result = await request.app[ITEMS].read_item(_item_id(request))
    response = representation(request, item)
    response.headers["Cache-Status"] = CACHE_STATUS[cache_result]
    return response


@routes.patch("/items/{id}")
@described(command=UpdateItem, example={"stock": 5})
async def update_item(request: web.Request) -> web.Response:
    command = await read_command(request, UpdateItem, {"id": _item_id(request)})
    return written_response(await issue(request, request.app[ITEMS].update_item, command))


@routes.post("/items/{id}/reservations")
@described(
    "It cannot be read; a `DELETE` at its `Location` gives it back.",
    command=ReserveItem,
    example={"quantity": 1},
    statuses=(201,),
)
async def reserve(request: web.Request) -> web.Response:
    command = await read_command(request, ReserveItem, {"id": _item_id(request)})
    written = await issue(request, request.app[ITEMS].reserve, command)
    location = f"/items/{written.value.item_id}/reservations/{written.value.id}"
    return written_response(written, status=201, location=location)


@routes.delete("/items/{id}/reservations/{reservation_id}")
@described(command=ReleaseItem, statuses=(204,))
async def release(request: web.Request) -> web.Response:
    path = {
        "id": _item_id(request),
        "reservation_id": path_id(request, "reservation_id", "reservation_not_found"),
    }
    command = path_command(request, ReleaseItem, path)
    return written_response(await issue(request, request.app[ITEMS].release, command))


def _item_id(request: web.Request) -> int:
    return path_id(request, "id", "item_not_found")


def attach(app: web.Application, dependencies: Dependencies) -> None:
    cache = open_cache(dependencies.database, dependencies.service)
    app[ITEMS] = ItemService(open_items(dependencies.database), dependencies.writes, cache)
    app[CHECKS].append(Check("cache", cache.problem, required=False))

    async def close(_app: web.Application) -> None:
        await cache.close()
        if isinstance(dependencies.command_log, CacheConsistentLog):
            await dependencies.command_log.close()

    app.on_cleanup.append(close)


def open_log(database: Database) -> CacheConsistentLog:
    """The command log, which tells nothing that a later read of the cache could contradict."""
    return CacheConsistentLog(open_command_log(database), open_cache(), load(CacheSettings).lease_s)


GATEWAY: Final = Gateway(
    name="items",
    routes=routes,
    attach=attach,
    commands=SERVICE.commands,
    upgrades=SERVICE.declared_upgrades,
    reads=SERVICE.models,
    problems=PROBLEMS,
    open_log=open_log,
)
