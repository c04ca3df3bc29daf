"""Which users whoever asks may see."""

from typing import Final

from aiohttp import web

from coordinator import NotFound
from coordinator.http import may_see, rows_for
from shared.users.model import User
from shared.users.rules import SHOWN_USERS
from shared.users.service import UserService

USERS: Final = web.AppKey("USERS", UserService)


async def shown_user(request: web.Request, user_id: int) -> User:
    """The user. Raises NotFound for one whom whoever asks may not see, as for one who does not exist."""
    user = await request.app[USERS].get_user(user_id)
    if not may_see(request, SHOWN_USERS, user):
        raise NotFound("user_not_found", f"there is no user {user_id}")
    return user


async def check_shown(request: web.Request, user_id: int) -> None:
    """Raises NotFound, unless whoever asks may see what is this user's: staff also of one who is gone."""
    if rows_for(request, SHOWN_USERS):
        await shown_user(request, user_id)
