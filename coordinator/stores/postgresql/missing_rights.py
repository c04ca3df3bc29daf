"""The rights that a role lacks, as the server knows them: its errors name the table or sequence, and not the right.

The server tells a role without USAGE on a schema that the schema's tables are not there.
"""

from collections.abc import Sequence
from typing import Any, Final

import psycopg

from coordinator.stores.lease_table import LEASE_TABLE
from coordinator.stores.port import NotAdmitted
from coordinator.stores.sql.schema import TableOf


def _unentered(tables: str) -> str:
    """Asks for the schemas of the session's search path in which its role may use nothing, and which have some of these
    tables: the catalogue shows them to everybody. Others may be closed on purpose, as `public` often is."""
    return f"""
        SELECT quote_ident(nspname) FROM pg_catalog.pg_namespace AS namespace
        WHERE NOT has_schema_privilege(namespace.oid, 'USAGE') AND EXISTS (
            SELECT FROM pg_catalog.pg_class WHERE relnamespace = namespace.oid AND relname IN ({tables})
        ) AND EXISTS (
            SELECT FROM unnest(string_to_array(current_setting('search_path'), ',')) AS path (part)
            WHERE nspname IN (lower(btrim(part)), btrim(part, ' "'))
            OR (btrim(part, ' "') = '$user' AND nspname = current_user)
        ) ORDER BY nspname
    """  # noqa: S608  # constants of ours


UNENTERED: Final = _unentered(f"'{LEASE_TABLE}'")
"""Those that have the lane's lease."""

_USED: Final = """
    WITH used AS (
        SELECT name, to_regclass(quote_ident(name)) AS found, col
        FROM unnest(%s::text[], %s::text[]) AS used (name, col)
    ), attributed AS (
        SELECT used.*, attnum FROM used JOIN pg_catalog.pg_attribute ON attrelid = found AND attname = col
    )
"""
# What fills a column of which the lane knows nothing. The server asks for USAGE or UPDATE; CASE keeps the function from
# other relations, of which it raises an error.
_SEQUENCES: Final = """
    SELECT 3, 'USAGE', 'sequence ' || sequence.oid::regclass
    FROM pg_catalog.pg_attrdef AS filled
    JOIN pg_catalog.pg_attribute AS attribute ON attrelid = adrelid AND attnum = adnum
    JOIN pg_catalog.pg_depend AS depends
        ON classid = 'pg_catalog.pg_attrdef'::regclass AND objid = filled.oid
        AND refclassid = 'pg_catalog.pg_class'::regclass
    JOIN pg_catalog.pg_class AS sequence ON sequence.oid = refobjid
    WHERE adrelid IN (SELECT found FROM used)
    AND NOT EXISTS (SELECT FROM used WHERE found = adrelid AND col = attname)
    AND CASE WHEN relkind = 'S' THEN NOT has_sequence_privilege(sequence.oid, 'USAGE, UPDATE') END
"""
_SHOWN: Final = 4

LACKING: Final = f"""
    {_USED}
    SELECT
        current_setting('transaction_read_only') = 'on',
        (SELECT count(*) FROM attributed) = (SELECT count(*) FROM used),
        quote_ident(current_user),
        ARRAY(
            SELECT string_agg(DISTINCT kind, ', ') || ' on ' || object FROM (
                SELECT 1, 'USAGE', 'schema ' || schema
                FROM ({_unentered("SELECT name FROM used WHERE found IS NULL")}) AS unentered (schema)
                UNION ALL
                SELECT 2, kind, 'table ' || quote_ident(name)
                FROM attributed, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE']) AS kind
                WHERE NOT has_column_privilege(found, attnum, kind)
                UNION ALL
                SELECT 2, 'DELETE', 'table ' || quote_ident(name)
                FROM attributed WHERE NOT has_table_privilege(found, 'DELETE')
                UNION ALL {_SEQUENCES}
            ) AS each (place, kind, object) GROUP BY place, object ORDER BY place, object
        )
"""  # noqa: S608  # constants of ours
"""Of pairs of tables and their columns: whether the session only reads, whether all of them are there, the session's
role, and what it lacks to write them, in words. Takes no lock.
"""

_HIDDEN: Final = """
    SELECT quote_ident(current_user), ARRAY(
        SELECT quote_ident(name)
        FROM (SELECT name, to_regclass(quote_ident(name)) AS found FROM unnest(%s::text[]) AS used (name)) AS tables
        WHERE row_security_active(found) AND (
            SELECT coalesce(bool_or(shows_all) FILTER (WHERE polpermissive), false)
                AND coalesce(bool_and(shows_all) FILTER (WHERE NOT polpermissive), true)
            FROM (
                SELECT polpermissive, pg_get_expr(polqual, polrelid) = 'true' AS shows_all
                FROM pg_catalog.pg_policy WHERE polrelid = found AND polcmd IN ('r', '*') AND EXISTS (
                    SELECT FROM unnest(polroles) AS role
                    WHERE CASE WHEN role = 0 THEN true ELSE pg_has_role(role, 'USAGE') END
                )
            ) AS policies
        ) IS NOT TRUE ORDER BY name
    )
"""
"""Of tables: the session's role, and those of which row-level security may hide rows from it."""


def check_shown(connection: "psycopg.Connection[tuple[Any, ...]]", tables: Sequence[TableOf]) -> None:
    """Raise NotAdmitted where row-level security may hide rows of these tables from the session's role."""
    found = connection.execute(_HIDDEN.encode(), [[table.name for table in tables]]).fetchone()
    role, hidden = found or ("", [])
    if hidden:
        more = " and others" if len(hidden) > _SHOWN else ""
        raise NotAdmitted(
            f"PostgreSQL: row-level security may hide rows of {', '.join(hidden[:_SHOWN])}{more} from role {role}, "
            f"which would take them for missing: ALTER ROLE {role} BYPASSRLS, or give each of these tables a policy "
            f"TO {role} USING (true), for reads and writes, and none that is restrictive"
        )


def in_words(role: str, lacking: list[str], lane: str) -> str:
    """The same for an operator."""
    more = f"; and more on {len(lacking) - _SHOWN} others" if len(lacking) > _SHOWN else ""
    return (
        f"PostgreSQL: role {role} lacks {'; '.join(lacking[:_SHOWN])}{more}: "
        f"`coordinator database-accounts {lane}` prints what GRANTs it, and does so with --apply"
    )
