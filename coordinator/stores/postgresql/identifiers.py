"""Names as PostgreSQL's statements have them."""


def quoted(name: str) -> str:
    """A name of any letters."""
    return '"' + name.replace('"', '""') + '"'
