"""What lets somebody else than its lane write the tables of a database, and the statements that end it."""

from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from coordinator.service.service import Service
from coordinator.stores import lane_tables


class ForeignRight(Struct, frozen=True, kw_only=True):
    """Why one role may write `tables`, beside the lane and whoever migrates it.

    `does` says which rights they are, and whence. `statements` end it, and are empty where none of ours may: `why`
    says why. `is_wide`: they take more than the right to write these tables; `why` says what.
    `is_administrators`: who has it may give himself any right, so nothing that is revoked would keep him out.
    """

    who: str
    does: str
    tables: tuple[str, ...]
    statements: tuple[str, ...] = ()
    why: str | None = None
    is_wide: bool = False
    is_administrators: bool = False


class ForeignRights(Struct, frozen=True):
    """All that were found. `unseen` says why others may be hidden from the role that looked; None: none are."""

    found: tuple[ForeignRight, ...]
    unseen: str | None = None

    @property
    def remaining(self) -> tuple[ForeignRight, ...]:
        """Those of others than administrators."""
        return tuple(right for right in self.found if not right.is_administrators)

    def statements(self, *, is_wide: bool) -> tuple[str, ...]:
        """What ends them, each once and in order; with those that take more than was asked, or without."""
        rights = [right for right in self.remaining if is_wide or not right.is_wide]
        return tuple(dict.fromkeys(statement for right in rights for statement in right.statements))


def tables_of(service: Service) -> tuple[str, ...]:
    """All tables of a lane's database that are the lane's: the service's, its own, and those of the migrations."""
    versions = ("lane_schema_version", f"{service.name}_schema_version")
    return (*(model.table for model in service.models), *lane_tables.metadata.tables, *versions)


def together(found: Iterable[ForeignRight]) -> tuple[ForeignRight, ...]:
    """Those that differ in their tables and statements only, as one."""
    same: dict[tuple[object, ...], list[ForeignRight]] = {}
    for each in found:
        key = (each.who, each.does, each.why, each.is_wide, each.is_administrators)
        same.setdefault(key, []).append(each)
    return tuple(_joined(rights) for rights in same.values())


def listed(rights: Iterable[str], order: Sequence[str]) -> str:
    """Rights in one order, as a statement and an eye take them."""
    names = set(rights)
    return ", ".join(name for name in order if name in names)


def _joined(rights: Sequence[ForeignRight]) -> ForeignRight:
    first = rights[0]
    return ForeignRight(
        who=first.who,
        does=first.does,
        tables=tuple(sorted({table for right in rights for table in right.tables})),
        statements=tuple(dict.fromkeys(_statements(rights))),
        why=first.why,
        is_wide=first.is_wide,
        is_administrators=first.is_administrators,
    )


def _statements(rights: Sequence[ForeignRight]) -> Iterator[str]:
    for right in rights:
        yield from right.statements
