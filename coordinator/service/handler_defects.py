"""What is wrong with the functions of a handler: those that apply a command, and name its rows."""

import inspect
from collections.abc import Iterator
from typing import Any, Final, get_args, get_origin, get_type_hints

import msgspec

from coordinator.service.allowing import AnyOf, any_of, has_scope
from coordinator.service.commands import Command
from coordinator.service.limit_texts import with_short_patterns
from coordinator.service.personal import is_personal, personal_fields
from coordinator.service.unit_of_work import FailurePolicy, Handler, name_of

_PARAMETERS: Final = {
    "handler": ("work", "command"),
    "`reads`": ("command",),
    "`target`": ("command",),
    "`allow`": ("who", "command", "rows"),
    "`of`": ("command",),
    "rule": ("who",),
}
_RULE_MAKERS: Final = ((has_scope, 'its scope, has_scope("staff")'), (any_of, "the rules, any_of(…, …)"))
"""Functions that make rules, and what they are to be given."""
_POLICIES: Final = get_args(FailurePolicy)


def defects_of_handler(handler: Handler[Any]) -> Iterator[str]:
    """Each defect as a line. The handler's command is a class of commands."""
    name, kind = name_of(handler.handle), handler.command.__name__
    subject = f"{name}, the handler of {kind},"
    unfit = list(_of_function(subject, "handler", handler.handle))
    yield from unfit
    if not unfit:
        yield from _of_annotations(subject, handler)
    functions = (("`reads`", handler.reads), ("`target`", handler.target), ("`allow`", handler.allow))
    for what, function in (*functions, ("`of`", handler.of)):
        if function is not None:
            yield from _of_function(f"{what} of {kind}", what, function)
    if handler.of is None and handler.target is None and is_personal(handler.command):
        fields = ", ".join(personal_fields(handler.command))
        yield (
            f"{kind}: {fields} is personal, and nobody knows of whom: give its handler `of`, which names the row of "
            "the person, such as of=lambda command: User.at(email=command.email)"
        )
    if handler.allow is not None and (handler.is_internal or handler.is_operators):
        yield f"{kind}: its `allow` is never asked, since nobody but the system issues it: leave it out"
    if handler.on_failure not in _POLICIES:
        yield f"{kind}: on_failure is {handler.on_failure!r:.100}, and must be one of {', '.join(_POLICIES)}"


def defects_of_rule(subject: str, rule: Any) -> Iterator[str]:
    """Those of a rule of rows, or of a service, each as a line that begins with the subject."""
    yield from _of_function(subject, "rule", rule)


def _of_function(subject: str, what: str, function: Any) -> Iterator[str]:
    """Whether it can be called as the lane does, and returns at once."""
    if isinstance(function, AnyOf):
        for each in function.rules:
            yield from _of_function(f"{name_of(each)}, in any_of of {subject},", what, each)
        return
    for maker, given in _RULE_MAKERS:
        if function is maker:
            yield f"{subject} is {name_of(maker)} itself, which makes a rule: give it {given}"
            return
    if not callable(function):
        yield f"{subject} is {function!r:.100}, and no function"
        return
    called = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    if inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called):
        yield f"{subject} is async: the lane calls plain functions. Leave out async; calls to the outside are effects"
    elif what == "handler" and inspect.isgeneratorfunction(called):
        yield f"{subject} has a yield, and so returns a generator: it must return its result"
    names = _PARAMETERS[what]
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        # Of a function in C nothing is known.
        return
    try:
        signature.bind(*names)
    except TypeError:
        yield f"{subject} is called with ({', '.join(names)}), and takes {signature!s:.200}"


def _of_annotations(subject: str, handler: Handler[Any]) -> Iterator[str]:
    function: Any = handler.handle
    try:
        hints = get_type_hints(function)
        parameters = list(inspect.signature(function).parameters)
    except (NameError, SyntaxError) as error:
        yield f"{subject} has annotations that cannot be read: {error}"
        return
    except (TypeError, ValueError):
        yield f"{subject} is no function that says what it returns: write one with annotations"
        return
    given: list[Any] = [hints.get(name) for name in parameters[:2]]
    if _is_command(given[0]):
        yield f"{subject} takes the command first: the unit of work comes first, then the command"
    elif len(given) > 1 and _is_command(given[1]) and not issubclass(handler.command, given[1]):
        yield f"{subject} takes a {given[1].__name__}"
    if "return" not in hints:
        yield f"{subject} does not say what it returns: annotate it, with -> None where it returns nothing"
        return
    try:
        msgspec.json.Decoder(hints["return"])
    except TypeError as error:
        yield f"{subject} returns what JSON does not hold: {with_short_patterns(str(error))}"


def _is_command(hint: Any) -> bool:
    return isinstance(hint, type) and get_origin(hint) is None and issubclass(hint, Command)
