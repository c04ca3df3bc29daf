"""Profiles of people: documents, with lists and free-form preferences, as MongoDB keeps them best.

    PROFILES_DATABASE_URL=mongodb://… coordinator --app profiles:profiles run profiles

On an SQL database the same rows have JSON columns.
"""

from datetime import date
from typing import Annotated
from uuid import UUID

from msgspec import Meta, Struct, field

from coordinator import Command, Name, Rejected, Service, UnitOfWork, VersionedRow

profiles = Service("profiles")

Handle = Annotated[str, Meta(min_length=1, max_length=30, pattern=r"\A[a-z0-9_]+\Z")]
Label = Annotated[str, Meta(min_length=1, max_length=30)]
ADDRESSES_MAX = 10


class Address(Struct, frozen=True):
    """Where somebody is reached."""

    label: Label
    street: Name
    city: Name


@profiles.row(is_public=True)
class Profile(VersionedRow, table="profiles", key="id", unique=("handle",)):
    """A person. `preferences` are the clients' own: whatever they have put there."""

    id: UUID
    handle: Handle
    born: date | None = None
    addresses: tuple[Address, ...] = ()
    preferences: dict[str, str | int | bool | None] = field(default_factory=dict)


class Register(Command, type="profiles.register"):
    """Make a profile. Rejected: `handle_taken`."""

    handle: Handle
    born: date | None = None


class AddAddress(Command, type="profiles.add_address"):
    """Add an address, or replace the one with its label. Rejected: `profile_not_found`, `too_many_addresses`."""

    id: UUID
    address: Address


class Prefer(Command, type="profiles.prefer"):
    """Set one preference; null takes it away. Rejected: `profile_not_found`."""

    id: UUID
    name: Label
    value: str | int | bool | None = None


@profiles.handles(Register, reads=lambda command: [Profile.at(handle=command.handle)])
def register(work: UnitOfWork, command: Register) -> Profile:
    if work.find(Profile, "handle", command.handle) is not None:
        raise Rejected("handle_taken", f"there is somebody called {command.handle} already")
    return work.add(Profile(id=UUID(work.command_id), handle=command.handle, born=command.born))


@profiles.handles(AddAddress, target=lambda command: Profile.at(command.id))
def add_address(work: UnitOfWork, command: AddAddress) -> Profile:
    profile = _existing(work, command.id)
    others = tuple(address for address in profile.addresses if address.label != command.address.label)
    if len(others) >= ADDRESSES_MAX:
        raise Rejected("too_many_addresses", f"a profile has at most {ADDRESSES_MAX} addresses")
    return work.save(profile.replace(addresses=(*others, command.address)))


@profiles.handles(Prefer, target=lambda command: Profile.at(command.id))
def prefer(work: UnitOfWork, command: Prefer) -> Profile:
    profile = _existing(work, command.id)
    preferences = {name: value for name, value in profile.preferences.items() if name != command.name}
    if command.value is not None:
        preferences[command.name] = command.value
    return work.save(profile.replace(preferences=preferences))


def _existing(work: UnitOfWork, key: UUID) -> Profile:
    profile = work.get(Profile, key)
    if profile is None:
        raise Rejected("profile_not_found", f"there is no profile {key}")
    return profile
