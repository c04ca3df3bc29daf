"""Users over REST."""

from typing import Final

from aiohttp import web

from coordinator import Page
from coordinator.http import (
    HOOKS,
    Dependencies,
    Gateway,
    NoQuery,
    PageQuery,
    described,
    issue,
    json_response,
    path_command,
    path_id,
    read_command,
    read_query,
    representation,
    rows_for,
    server_timing,
    written_response,
)
from gateways import purchases
from gateways.problem_codes import PROBLEMS
from gateways.purchases import PURCHASES
from gateways.shown_users import USERS, shown_user
from shared.users import SERVICE
from shared.users.commands import CreateUser, CreditUser, DeleteUser, TransferCredit, UpdateUser
from shared.users.model import User
from shared.users.purchases.service import PurchaseService
from shared.users.rules import SHOWN_USERS
from shared.users.service import UserService

NOT_FOUND: Final = {"user_not_found": 404}

routes = web.RouteTableDef()


@routes.post("/users")
@described(command=CreateUser, example={"name": "Ada", "email": "ada@example.org"}, statuses=(201,))
async def create_user(request: web.Request) -> web.Response:
    command = await read_command(request, CreateUser)
    written = await issue(request, request.app[USERS].create_user, command)
    return written_response(written, status=201, location=_location(written.value.id))


@routes.get("/users")
@described(
    "One's own users, in pages; all of them for the scope `staff`.", query=PageQuery, answer=Page[User], reads_rows=True
)
async def list_users(request: web.Request) -> web.Response:
    query = read_query(request, PageQuery)
    shown = rows_for(request, SHOWN_USERS)
    return json_response(await request.app[USERS].list_users(query.after, query.limit, shown))


@routes.get("/users/{id}")
@described("One user.", answer=User, reads_rows=True, codes=NOT_FOUND)
async def get_user(request: web.Request) -> web.Response:
    read_query(request, NoQuery)
    return representation(request, await shown_user(request, _user_id(request)))


@routes.patch("/users/{id}")
@described(command=UpdateUser, example={"name": "Ada L."})
async def update_user(request: web.Request) -> web.Response:
    command = await read_command(request, UpdateUser, {"id": _user_id(request)})
    return written_response(await issue(request, request.app[USERS].update_user, command))


@routes.delete("/users/{id}")
@described(command=DeleteUser, statuses=(204,))
async def delete_user(request: web.Request) -> web.Response:
    command = path_command(request, DeleteUser, {"id": _user_id(request)})
    return written_response(await issue(request, request.app[USERS].delete_user, command))


@routes.post("/users/{id}/credit")
@described(command=CreditUser, example={"amount": 500})
async def credit_user(request: web.Request) -> web.Response:
    command = await read_command(request, CreditUser, {"id": _user_id(request)})
    written = await issue(request, request.app[USERS].credit_user, command)
    return written_response(written, content_location=_location(written.value.id))


@routes.post("/transfers")
@described("Both users change, or neither.", command=TransferCredit, example={"from": 1, "to": 2, "amount": 100})
async def transfer(request: web.Request) -> web.Response:
    """200 and not 201: a transfer has no resource of its own."""
    command = await read_command(request, TransferCredit)
    return written_response(await issue(request, request.app[USERS].transfer, command))


def _user_id(request: web.Request) -> int:
    return path_id(request, "id", "user_not_found")


def _location(user_id: int) -> str:
    return f"/users/{user_id}"


def attach(app: web.Application, dependencies: Dependencies) -> None:
    app[USERS] = UserService(dependencies.sql(), dependencies.writes)
    app[HOOKS].on_response(server_timing)
    app[PURCHASES] = PurchaseService(dependencies.sql(), dependencies.writes)


GATEWAY: Final = Gateway(
    name="users",
    routes=(*routes, *purchases.routes),
    attach=attach,
    commands=SERVICE.commands,
    upgrades=SERVICE.declared_upgrades,
    reads=SERVICE.models,
    problems=PROBLEMS,
)
