"""The revisions of a database's schema."""

from msgspec import Struct


class Revision(Struct, frozen=True):
    """The revision of a history that a database has, and the last one that this release knows; empty: none."""

    history: str
    here: str
    wanted: str
