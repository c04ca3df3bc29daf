"""Views by which tables are written on MySQL and MariaDB."""

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from sqlalchemy import Connection, text

View: TypeAlias = tuple[str, str]
"""Its database and its name."""

_HERE: Final = text("SELECT DATABASE()")
_VIEWS: Final = text(
    "SELECT table_schema, table_name, view_definition, security_type FROM information_schema.views "
    "WHERE is_updatable = 'YES' ORDER BY 1, 2"
)


def views_upon(connection: Connection, tables: Sequence[str]) -> Mapping[View, tuple[str, ...]]:
    """The tables of this database that each view writes with its definer's rights, by itself or by other views.

    A view that takes the rights of whoever uses it gives none by itself. But it takes those of a view's definer that
    stands upon it.
    """
    here = str(connection.execute(_HERE).scalar_one())
    known = {
        (str(schema), str(name)): (str(definition or "").lower(), security == "DEFINER")
        for schema, name, definition, security in connection.execute(_VIEWS)
    }
    reached = {(here, table): {table} for table in tables}
    is_done = False
    while not is_done:
        is_done = True
        for view, (definition, _) in known.items():
            before = reached.get(view, set())
            # A server writes each name whole into the text of a view.
            roots = before.union(*(roots for relation, roots in reached.items() if _written(relation) in definition))
            if roots != before:
                reached[view], is_done = roots, False
    return {
        view: tuple(sorted(reached[view]))
        for view, (_, is_definers) in known.items()
        if is_definers and view in reached
    }


def _written(relation: View) -> str:
    return ".".join("`" + part.replace("`", "``").lower() + "`" for part in relation)
