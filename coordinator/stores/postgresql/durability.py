"""What may cost a commit on PostgreSQL that the lane has acknowledged."""

from collections.abc import Callable, Sequence
from typing import Any, Final

KEEP_COMMITS: Final = """set_config(
        'synchronous_commit',
        CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END,
        {is_local}
    )"""
"""Raises what the server, the database or the role says of commits, and never lowers it. Set in the session, so that a
reload of the server's configuration does not change it either."""

WAIT_FOR_STANDBY: Final = "SyncRepWaitForLSN"
"""The function of the server that warns of a commit that its synchronous standby may not have, since somebody ended the
wait for that. The text of the warning is in the server's language."""

_SETTINGS: Final = "SELECT current_setting('fsync'), current_setting('full_page_writes')"
_UNLOGGED: Final = """
    SELECT string_agg(relname, ', ' ORDER BY relname) FROM pg_catalog.pg_class
    WHERE relpersistence = 'u' AND oid IN (SELECT to_regclass(quote_ident(name)) FROM unnest(%s::text[]) AS name)
"""


def losses(first_row: Callable[[str, Sequence[Any]], tuple[Any, ...] | None], tables: Sequence[str]) -> list[str]:
    """Why commits may be lost with the machine's power, if they may be."""
    fsync, full_page_writes = first_row(_SETTINGS, ()) or (None, None)
    (unlogged,) = first_row(_UNLOGGED, [list(tables)]) or (None,)
    problems = []
    if fsync != "on":
        problems.append(f"fsync is {fsync}")
    if full_page_writes != "on":
        problems.append(f"full_page_writes is {full_page_writes}: a page that was half written is not restored")
    if unlogged:
        problems.append(f"a crash empties what is UNLOGGED: {unlogged} (ALTER TABLE … SET LOGGED)")
    return problems
