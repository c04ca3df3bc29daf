"""What is said of a name that a unit of work does not have."""


def no_such_name(work: object, name: str) -> str:
    """In the words of the documents, with the name that may be meant, or else all that there are."""
    from difflib import get_close_matches  # noqa: PLC0415  # for a mistake alone

    names = [each for each in dir(type(work)) if not each.startswith("_")]
    meant = get_close_matches(name, names, n=1, cutoff=0.75)
    return f"work.{name}: a unit of work has no {name}; " + (
        f"did you mean work.{meant[0]}?" if meant else f"it has {', '.join(names)}"
    )
