"""The table of what a handler does with its unit of work, for docs/API.md: from the signatures and docstrings."""

import inspect
import re
from typing import Final

from coordinator.service.reading import Reading
from coordinator.service.unit_of_work import UnitOfWork

BEGIN: Final = "<!-- unit of work: made by `python -m coordinator.documents.generated --write` -->"
END: Final = "<!-- end of unit of work -->"
_MODULES: Final = re.compile(r"\b(?:[a-z_]+\.)+(?=[A-Z])|\bdatetime\.(?=datetime|timedelta)")


def unit_of_work() -> str:
    """A Markdown table of its properties and methods, in their order."""
    lines = ["| in a handler | gives | what it does | raises |", "| --- | --- | --- | --- |"]
    for name, member in (vars(Reading) | vars(UnitOfWork)).items():
        if not name.startswith("_"):
            lines.append(_row(name, member))
    return "\n".join(lines)


def api(text: str) -> str:
    """API.md with the table made again. Raises ValueError where the markers are missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"API.md needs the two lines {BEGIN} and {END}")
    return f"{before}{begin}\n\n{unit_of_work()}\n\n{end}{after}"


def _row(name: str, member: object) -> str:
    function = member.fget if isinstance(member, property) else member
    if not inspect.isfunction(function):
        raise TypeError(f"UnitOfWork.{name} is neither a method nor a property")
    signature = inspect.signature(function)
    own = [each.replace(annotation=each.empty) for each in signature.parameters.values() if each.name != "self"]
    arguments = "" if isinstance(member, property) else str(inspect.Signature(own))
    does, raises = _told(inspect.getdoc(member) or "")
    cells = (f"`work.{name}{arguments}`", f"`{_shown(signature.return_annotation)}`", does, raises)
    return f"| {' | '.join(cell.replace('|', '&#124;') if '`' not in cell else cell for cell in cells)} |"


def _told(text: str) -> tuple[str, str]:
    """What a docstring says but for the errors, and the errors."""
    sentences = re.split(r"(?<=\.)\s+(?=[A-Z])", " ".join(text.split()))
    raises = [each.removeprefix("Raises ") for each in sentences if each.startswith("Raises ")]
    return " ".join(each for each in sentences if not each.startswith("Raises ")), " ".join(raises)


def _shown(annotation: object) -> str:
    """A type as one writes it, in a cell of a table."""
    # Python writes an optional type in one way or the other, by its version.
    text = (
        annotation.__name__ if isinstance(annotation, type) and not hasattr(annotation, "__args__") else str(annotation)
    )
    text = re.sub(r"Optional\[(.+)\]$", r"\1 | None", _MODULES.sub("", text.replace("~", "")))
    return text.replace(" | ", " or ").replace("NoneType", "None")
