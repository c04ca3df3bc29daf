"""What lets others write a lane's tables on PostgreSQL, as its catalogues have it, and how its owner ends it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from msgspec import Struct
from sqlalchemy import Connection, bindparam, text

from coordinator.stores.foreign_rights import ForeignRight, ForeignRights, listed, together
from coordinator.stores.postgresql.administrators import administrators, members, of_the_server
from coordinator.stores.postgresql.identifiers import quoted
from coordinator.stores.postgresql.makers import makers
from coordinator.stores.writers import WritersQuery

RIGHTS: Final = ("INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
"""TRIGGER, since a trigger's function runs within the lane's transactions, with all that the lane may; and REFERENCES,
since a row that is removed takes those with it that refer to it, and before PostgreSQL 18 deferred triggers of their
table run so, too.
"""

# A table is also written through its partitions and children, through what it is a child of, and through views that
# write with their owner's rights.
_RELATIONS: Final = text("""
    WITH RECURSIVE linked (source, target, way) AS (
        SELECT inhparent, inhrelid, 'part' FROM pg_inherits
        UNION ALL SELECT inhrelid, inhparent, 'parent' FROM pg_inherits
        UNION ALL SELECT refobjid, ev_class, 'view' FROM pg_depend JOIN pg_rewrite ON pg_rewrite.oid = objid
            JOIN pg_class AS view ON view.oid = ev_class
            WHERE classid = 'pg_rewrite'::regclass AND refclassid = 'pg_class'::regclass AND refobjid <> ev_class
                AND view.relkind = 'v' AND pg_relation_is_updatable(ev_class, TRUE) & 28 <> 0
                AND coalesce(view.reloptions::text, '') !~* 'security_invoker=(true|on|yes|1)'
    ), reached (oid, root, way) AS (
        SELECT oid, relname, 'part' FROM pg_class
            WHERE relnamespace = quote_ident(current_schema())::regnamespace AND relname IN :tables
        UNION SELECT target, root, linked.way FROM reached JOIN linked ON source = reached.oid
            WHERE reached.way = 'part' OR linked.way = 'view' OR reached.way = linked.way
    )
    SELECT relation.oid::bigint, nspname, relation.relname,
        pg_get_userbyid(relowner), pg_has_role(relowner, 'USAGE'), bool_or(way = 'part'),
        array_agg(DISTINCT root::text)
    FROM reached JOIN pg_class AS relation ON relation.oid = reached.oid
        JOIN pg_namespace ON pg_namespace.oid = relnamespace
    GROUP BY relation.oid, relnamespace, nspname, relation.relname, relowner ORDER BY nspname, relation.relname
""").bindparams(bindparam("tables", expanding=True))
_GRANTS: Final = text("""
    SELECT oid::bigint, pg_get_userbyid(grantor), CASE WHEN grantee <> 0 THEN pg_get_userbyid(grantee) END,
        privilege_type, is_grantable
    FROM (
        SELECT oid, (aclexplode(relacl)).* FROM pg_class WHERE oid IN :relations
        UNION ALL SELECT attrelid, (aclexplode(attacl)).* FROM pg_attribute WHERE attrelid IN :relations
    ) AS granted WHERE privilege_type IN :rights ORDER BY oid, 3 NULLS FIRST, 2, privilege_type
""").bindparams(bindparam("relations", expanding=True), bindparam("rights", expanding=True))
_HELD: Final = text("""
    SELECT right_name FROM unnest(CAST(:rights AS text[])) AS right_name
        JOIN pg_class ON pg_class.oid = CAST(:relation AS bigint)::oid JOIN pg_roles ON rolname = :role
    WHERE has_table_privilege(pg_roles.oid, pg_class.oid, right_name)
        AND NOT rolsuper AND NOT pg_has_role(pg_roles.oid, relowner, 'USAGE')
""")
_DEFAULTS: Final = text("""
    SELECT pg_get_userbyid(defaclrole), pg_has_role(defaclrole, 'USAGE'), nspname,
        CASE WHEN grantee <> 0 THEN pg_get_userbyid(grantee) END, array_agg(privilege_type::text)
    FROM (SELECT defaclrole, defaclnamespace, (aclexplode(defaclacl)).* FROM pg_default_acl WHERE defaclobjtype = 'r')
        AS granted LEFT JOIN pg_namespace ON pg_namespace.oid = defaclnamespace
    WHERE privilege_type IN :rights AND pg_get_userbyid(defaclrole) IN :owners
        AND (defaclnamespace = 0 OR defaclnamespace = quote_ident(current_schema())::regnamespace)
    GROUP BY 1, 2, 3, 4 ORDER BY 1, 3 NULLS FIRST, 4 NULLS FIRST
""").bindparams(bindparam("rights", expanding=True), bindparam("owners", expanding=True))
_WHO: Final = text("SELECT current_user::text")


class _Relation(Struct, frozen=True):
    """Something by which rows of `tables` are written; `is_own`: nothing else is written by it."""

    name: str
    owner: str
    is_ours: bool
    """Whether the role that looks may act as its owner."""
    is_own: bool
    tables: tuple[str, ...]


class _Grant(Struct, frozen=True):
    """One role's rights, by who gave them."""

    grantor: str
    grantee: str | None
    """None: PUBLIC."""
    rights: frozenset[str]
    passes_on: frozenset[str]
    """Those that it may give to others."""


def foreign_rights(connection: Connection, query: WritersQuery) -> ForeignRights:
    """Whatever role looks, it is shown all of them."""
    looking = str(connection.execute(_WHO).scalar_one())
    kept = {looking, query.role or looking}
    relations = _relations(connection, query.tables)
    grants = _grants(connection, tuple(relations))
    found: list[ForeignRight] = []
    for number, relation in relations.items():
        if relation.owner not in kept:
            found.append(_owners(relation))
        found += _granted(connection, number, relation, grants.get(number, ()), kept | {relation.owner})
    owners = sorted({relation.owner for relation in relations.values() if relation.is_own} | {looking})
    found += _defaults(connection, owners, kept)
    tables = tuple(sorted({table for relation in relations.values() for table in relation.tables}))
    found += makers(connection, kept, query.role or looking, tables)
    found += members(connection, kept | set(owners), tables)
    found += of_the_server(connection, kept, tables)
    found += administrators(connection, kept, tables)
    return ForeignRights(together(found))


def _relations(connection: Connection, tables: Sequence[str]) -> dict[int, _Relation]:
    return {
        number: _Relation(f"{quoted(schema)}.{quoted(name)}", owner, is_ours, is_own, tuple(roots))
        for number, schema, name, owner, is_ours, is_own, roots in connection.execute(
            _RELATIONS, {"tables": list(tables)}
        )
    }


def _grants(connection: Connection, relations: Sequence[int]) -> Mapping[int, Sequence[_Grant]]:
    rights: dict[tuple[int, str, str | None], set[str]] = {}
    passed: dict[tuple[int, str, str | None], set[str]] = {}
    given = {"relations": list(relations), "rights": list(RIGHTS)}
    for number, grantor, grantee, right, is_grantable in connection.execute(_GRANTS, given):
        rights.setdefault((number, grantor, grantee), set()).add(right)
        if is_grantable:
            passed.setdefault((number, grantor, grantee), set()).add(right)
    grants: dict[int, list[_Grant]] = {}
    for (number, grantor, grantee), names in rights.items():
        options = frozenset(passed.get((number, grantor, grantee), ()))
        grants.setdefault(number, []).append(_Grant(grantor, grantee, frozenset(names), options))
    return grants


def _owners(relation: _Relation) -> ForeignRight:
    return ForeignRight(
        who=relation.owner,
        does="owns them" if relation.is_own else f"owns what they are written by: {relation.name}",
        tables=relation.tables,
        why=f"an owner gives himself every right: ALTER TABLE {relation.name} OWNER TO whoever migrates the lane",
    )


def _granted(
    connection: Connection, number: int, relation: _Relation, grants: Sequence[_Grant], kept: set[str]
) -> Iterator[ForeignRight]:
    """A right that was passed on ends with that of whoever passed it on (CASCADE).

    So those who are to keep theirs get them from the owner first.
    """
    foreign = [grant for grant in grants if grant.grantee not in kept]
    if not foreign:
        return
    first = tuple(_kept_rights(connection, number, relation, grants, kept))
    for grant in foreign:
        does = listed(grant.rights, RIGHTS) + (", and may give it to others" if grant.passes_on else "")
        if grant.grantor != relation.owner:
            does += f", given by {grant.grantor}"
        if not relation.is_own:
            does += f", by {relation.name}"
        if not relation.is_ours:
            why = f"only {relation.owner}, who owns {relation.name}, or a superuser may revoke it"
            yield ForeignRight(who=grant.grantee or "PUBLIC", does=does, tables=relation.tables, why=why)
            continue
        if grant.grantor == relation.owner:
            ending = (
                f"REVOKE {listed(grant.rights, RIGHTS)} ON TABLE {relation.name} FROM {_role(grant.grantee)} CASCADE"
            )
            statements = (*first, ending)
        else:
            # Whoever gave it has lost it by then, or the right to give it.
            statements = first
        also = None if relation.is_own else f"other tables may be written by {relation.name}, too"
        yield ForeignRight(
            who=grant.grantee or "PUBLIC",
            does=does,
            tables=relation.tables,
            statements=statements,
            why=also,
            is_wide=not relation.is_own,
        )


def _kept_rights(
    connection: Connection, number: int, relation: _Relation, grants: Sequence[_Grant], kept: set[str]
) -> Iterator[str]:
    for role in sorted(kept - {relation.owner}):
        own = [grant for grant in grants if grant.grantee == role]
        from_owner = {right for grant in own if grant.grantor == relation.owner for right in grant.rights}
        given = {"role": role, "relation": number, "rights": list(RIGHTS)}
        held = set(connection.execute(_HELD, given).scalars())
        if missing := held - from_owner:
            yield f"GRANT {listed(missing, RIGHTS)} ON TABLE {relation.name} TO {quoted(role)}"
        passing = {right for grant in grants if grant.grantor == role for right in grant.rights}
        if passing:
            rights = listed(passing, RIGHTS)
            yield f"REVOKE GRANT OPTION FOR {rights} ON TABLE {relation.name} FROM {quoted(role)} CASCADE"


def _defaults(connection: Connection, owners: Sequence[str], kept: set[str]) -> Iterator[ForeignRight]:
    """What tables of a later migration would give away at once."""
    given = {"rights": list(RIGHTS), "owners": list(owners)}
    for owner, is_ours, schema, grantee, rights in connection.execute(_DEFAULTS, given):
        if grantee in kept or grantee == owner:
            continue
        names = listed(rights, RIGHTS)
        within = "" if schema is None else f" IN SCHEMA {quoted(schema)}"
        statement = (
            f"ALTER DEFAULT PRIVILEGES FOR ROLE {quoted(owner)}{within} REVOKE {names} ON TABLES FROM {_role(grantee)}"
        )
        why = "it is of every schema of the database" if schema is None else None
        yield ForeignRight(
            who=grantee or "PUBLIC",
            does=f"{names} on tables that {owner} will make",
            tables=(),
            statements=(statement,) if is_ours else (),
            why=why if is_ours else f"only {owner} or a superuser may revoke it",
            is_wide=schema is None,
        )


def _role(name: str | None) -> str:
    return "PUBLIC" if name is None else quoted(name)
