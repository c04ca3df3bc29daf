"""Accounts whose addresses are one address: `python -m shared.users.collisions`.

Earlier releases kept addresses in other forms, and took characters that cannot be seen. Such rows can be read and
changed as ever. This lists them, for a person to decide: an address belongs to the person who reads the mail.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator import ConfigurationError, DatabaseUnavailable, unseen_in
from coordinator.reading import close_database, open_database
from coordinator.settings import ReaderSettings, load
from shared.users import SERVICE
from shared.users.emails import kept_email, without_unseen
from shared.users.model import User
from shared.users.repository import UserRepository

PAGE: Final = 1000


def collisions(users: Iterable[User]) -> list[Sequence[User]]:
    """The users that have one address in several spellings, or with characters that cannot be seen, by address.

    A single user is among them if the row has another form than a new one would have.
    """
    by_address: dict[str, list[User]] = {}
    for user in users:
        by_address.setdefault(kept_email(without_unseen(user.email)), []).append(user)
    return [same for address, same in by_address.items() if len(same) > 1 or same[0].email != address]


def lines(groups: Iterable[Sequence[User]]) -> list[str]:
    """A line for each user, and an empty one between two addresses. What cannot be seen is written as its number."""
    shown: list[str] = []
    for same in groups:
        shown += [""] if shown else []
        for user in same:
            unseen = unseen_in(user.email)
            why = f"has {unseen}" if unseen else "kept" if kept_email(user.email) == user.email else "in another form"
            shown.append(f"user {user.id}  {user.email!a}  {why}")
    return shown


async def _all(repository: UserRepository) -> AsyncIterator[User]:
    after: int | None = 0
    while after is not None:
        page = await repository.page(after, PAGE)
        for user in page.items:
            yield user
        after = page.next


async def _listed() -> int:
    database = open_database(load(ReaderSettings, prefix=f"{SERVICE.name.upper()}_").url(SERVICE.name), pool_max=1)
    if not isinstance(database, AsyncEngine):
        raise ConfigurationError("USERS_READER_URL: users are in an SQL database")
    try:
        found = lines(collisions([user async for user in _all(UserRepository(database))]))
    finally:
        await close_database(database)
    print("\n".join(found) if found else "no two accounts have one address")  # noqa: T201  # a program
    return 1 if found else 0


def main() -> int:
    """Exit status 0: there are none; 1: those that are printed; 2: the database cannot be read."""
    try:
        return asyncio.run(_listed())
    except (ConfigurationError, DatabaseUnavailable) as error:
        print(f"users: {error}", file=sys.stderr)  # noqa: T201
        return 2


if __name__ == "__main__":
    sys.exit(main())
