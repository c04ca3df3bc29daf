"""What others than operators are told of a failure whose text is not ours to show.

The text of an author's exception, of a database or of a driver may hold values of rows, and names of columns, hosts
and constraints. Operators find it in the dead letter and in the log. All others get the failure's code, a text of ours
and an id to quote. This is the one list of such failures, for the outcomes of lanes and the answers of gateways.
"""

from typing import Final

_SHOWN: Final = {
    "handler_error": "a defect of this service kept the command from being applied",
    "invalid_row": "the command was to write a row that no database takes",
    "database_refused": "the database refused what the command was to change",
    "row_unreadable": "a row that it needs is none of its class",
    "upgrade_failed": "nothing could be made of arguments of this older version",
}


def is_unshown(code: str | None) -> bool:
    """Whether the text of a failure with this code is for operators only."""
    return code in _SHOWN


def shown_outcome(code: str | None, text: str | None, command_id: str | None) -> str | None:
    """The text of an outcome, given that of its failure."""
    shown = _SHOWN.get(code or "")
    if shown is None:
        return text
    where = "in its dead letter" if command_id is None else f"under its id, {command_id}"
    return f"{shown}: operators find the reason {where}"


def shown_to_sender(code: str, text: str, command_id: str | None) -> str:
    """The text of an outcome for whoever sent the command from a shell, who may be an operator or may ask one."""
    shown = _SHOWN.get(code)
    if shown is None or command_id is None:
        return text
    return f"{shown}: `coordinator command {command_id}` says why; who may not read the lane's database quotes this id"


def shown_answer(code: str, text: str) -> str:
    """The text of a gateway's answer, given that of an error that arose in the gateway."""
    shown = _SHOWN.get(code)
    return text if shown is None else f"{shown}: operators find the reason in the log, under this `trace_id`"
