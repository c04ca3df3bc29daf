"""The operations on users: the API that HTTP frameworks, scripts and tests expose or call."""

from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator import PAGE_DEFAULT, NotFound, Page, Value
from coordinator.client import DEFAULT_OPTIONS, WriteOptions, Writes, Written, execute
from shared.users.commands import CreateUser, CreditUser, DeleteUser, Transfer, TransferCredit, UpdateUser
from shared.users.model import User
from shared.users.repository import EVERY_ROW, UserRepository


class UserService:
    """Users and their credit.

    Reads go to the database; writes go through `writes` and return once they are committed. Every write raises
    InvalidCommand, CommandRejected, CommandFailed, CommandPending or Unavailable; every read DatabaseUnavailable.
    """

    def __init__(self, database: AsyncEngine, writes: Writes) -> None:
        self._users = UserRepository(database)
        self._writes = writes

    async def get_user(self, user_id: int) -> User:
        """Raises NotFound."""
        user = await self._users.get(user_id)
        if user is None:
            raise NotFound("user_not_found", f"there is no user {user_id}")
        return user

    async def list_users(
        self, after: int = 0, limit: int = PAGE_DEFAULT, shown: Mapping[str, Value] = EVERY_ROW
    ) -> Page[User]:
        """Users in order of their ids: those that have these values, by column."""
        return await self._users.page(after, limit, shown)

    async def create_user(self, command: CreateUser, options: WriteOptions = DEFAULT_OPTIONS) -> Written[User]:
        """Add a user; ids are 1, 2, 3 … in the order of the lane."""
        return await execute(self._writes, command, User, options)

    async def update_user(self, command: UpdateUser, options: WriteOptions = DEFAULT_OPTIONS) -> Written[User]:
        """Change a user's name or e-mail address."""
        return await execute(self._writes, command, User, options)

    async def delete_user(self, command: DeleteUser, options: WriteOptions = DEFAULT_OPTIONS) -> Written[None]:
        """Remove a user."""
        return await execute(self._writes, command, type(None), options)

    async def credit_user(self, command: CreditUser, options: WriteOptions = DEFAULT_OPTIONS) -> Written[User]:
        """Add to a user's credit, or take from it."""
        return await execute(self._writes, command, User, options)

    async def transfer(self, command: TransferCredit, options: WriteOptions = DEFAULT_OPTIONS) -> Written[Transfer]:
        """Move credit from one user to another, whole or not at all."""
        return await execute(self._writes, command, Transfer, options)
