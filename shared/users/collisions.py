"""Accounts whose addresses are one address: `python -m shared.users.collisions`.

Earlier releases kept addresses in other forms, and took characters that cannot be seen. Such rows can be read and
changed as ever. This lists them, for a person to decide: an address belongs to the person who reads the mail.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final

import click
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator import ConfigurationError, DatabaseUnavailable, unseen_in
from coordinator.reading import check_reads, close_database, open_database
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


async def _listed(url: str) -> list[str]:
    database = open_database(url, pool_max=1)
    if not isinstance(database, AsyncEngine):
        raise ConfigurationError("users are in an SQL database")
    try:
        await check_reads(database, SERVICE.name, [User])
        return lines(collisions([user async for user in _all(UserRepository(database))]))
    finally:
        await close_database(database)


@click.command()
def main() -> None:
    """List the accounts whose addresses are one address, or have another form than a new one would have.

    It reads USERS_READER_URL, or USERS_DATABASE_URL. Exit status 0: there are none; 1: those that are printed; 2: the
    database cannot be read.
    """
    setting = f"{SERVICE.name.upper()}_READER_URL"
    try:
        settings = load(ReaderSettings, prefix=f"{SERVICE.name.upper()}_")
        url, setting = settings.url(SERVICE.name), settings.setting(SERVICE.name)
        found = asyncio.run(_listed(url))
    except (ConfigurationError, DatabaseUnavailable) as error:
        text = str(error)
        click.echo(f"users: {text}" if setting in text else f"users: {setting}: {text}", err=True)
        sys.exit(2)
    click.echo("\n".join(found) if found else "no two accounts have one address")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
