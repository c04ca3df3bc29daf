"""What is wrong with how a service has its calls to the outside made."""

import inspect
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, get_type_hints

from coordinator.service.authors_code import authors_line
from coordinator.service.commands import Command
from coordinator.service.errors import ConfigurationError
from coordinator.service.lane_names import service_of
from coordinator.service.outside_calls import Effect, EffectHandler, Effects
from coordinator.service.service import Service
from coordinator.service.unit_of_work import name_of
from coordinator.service.upgrades import Upgrade
from coordinator.service.version_defects import defects_of_effect_versions


def opened_effects(service: Service) -> Effects:
    """The object that makes a service's calls to the outside. Raises ConfigurationError if it cannot be made."""
    if service.effects is None:
        raise ConfigurationError(
            f"service {service.lane} makes no calls to the outside: give it effects=…, an object with EffectHandlers"
        )
    try:
        return service.effects()
    except ConfigurationError:
        raise
    except Exception as error:
        place = authors_line("".join(traceback.format_exception(error)))
        at = "" if place is None else f" ({place})"
        what = f"{name_of(service.effects)} raised {type(error).__name__}: {error}{at}"
        raise ConfigurationError(f"the effects of service {service.name} cannot be opened: {what}") from error


def check_effects(lane: str, effects: Effects, upgrades: Sequence[Upgrade]) -> None:
    """Raise ConfigurationError, which names every defect of the object that makes the calls of a service."""
    handlers: Any = getattr(effects, "handlers", None)
    if defects := [*_of_object(effects, handlers), *_of_handlers(service_of(lane), handlers, upgrades)]:
        text = f"the effects of service {service_of(lane)} are declared wrongly:"
        raise ConfigurationError("\n  ".join((text, *defects)))


def defects_of_opening(opening: Any) -> Iterator[str]:
    """Those of a service's `effects`, each as a line: it is called without arguments, and makes the object."""
    if opening is None:
        return
    if not callable(opening):
        yield (
            f"effects is {opening!r:.100}, and no function: give the class, or a function that makes the object, "
            "since each worker has one of its own"
        )
        return
    if inspect.iscoroutinefunction(opening):
        yield f"effects is {name_of(opening)}, which is async: it must return the object at once"
    try:
        inspect.signature(opening).bind()
    except TypeError:
        yield (
            f"effects is {name_of(opening)}, which takes {inspect.signature(opening)!s:.200}, and is called with "
            "nothing: have it find the rest itself, such as in the environment"
        )
    except ValueError:
        # Of a function in C nothing is known.
        return


def _of_object(effects: Any, handlers: Any) -> Iterator[str]:
    name = type(effects).__name__
    if not inspect.iscoroutinefunction(getattr(effects, "close", None)):
        yield f"{name} has no `async def close(self)`, which releases its connections"
    if not isinstance(handlers, tuple | list):
        yield f"{name}.handlers is {handlers!r:.100}, and must be a tuple of EffectHandlers, one for each type"


def _of_handlers(service: str, handlers: Any, upgrades: Sequence[Upgrade]) -> Iterator[str]:
    by_type: dict[str, type[Effect]] = {}
    for handler in handlers if isinstance(handlers, tuple | list) else ():
        if not isinstance(handler, EffectHandler):
            yield f"{handler!r:.100} is no EffectHandler"
            continue
        effect: Any = handler.effect
        if not (isinstance(effect, type) and issubclass(effect, Effect)):
            yield f"{effect!r:.100} has an EffectHandler, and is no class of effects: derive it from Effect"
            continue
        name, kind = effect.__name__, getattr(effect, "type", None)
        if not isinstance(kind, str):
            yield f'{name} has no type: declare it as class {name}(Effect, type="{service}.…")'
        elif not kind.startswith(f"{service}."):
            yield f"{name}: its type is {kind!r}, and must begin with {service}. as its service is named"
        elif kind in by_type:
            yield f"{kind} has two EffectHandlers"
        else:
            by_type[kind] = effect
        yield from _of_functions(name, handler)
    yield from defects_of_effect_versions(list(by_type.values()), upgrades)


def _returns_command(function: Any) -> bool:
    """Whether it says so itself. What says nothing may return something to wait for."""
    try:
        returned = get_type_hints(function).get("return")
    except (TypeError, NameError, SyntaxError):
        return False
    return isinstance(returned, type) and issubclass(returned, Command)


def _of_functions(name: str, handler: EffectHandler[Any]) -> Iterator[str]:
    functions: tuple[tuple[str, Any], ...] = (("perform", handler.perform), ("give_up", handler.give_up))
    for what, function in (*functions, *((("look_up", handler.look_up),) if handler.look_up is not None else ())):
        if not callable(function):
            yield f"{what} of {name} is {function!r:.100}, and no function"
            continue
        if what == "give_up":
            if inspect.iscoroutinefunction(function):
                yield f"{what} of {name} is async: it makes its command of what it is given, and calls nobody"
        elif not inspect.iscoroutinefunction(function) and _returns_command(function):
            yield f"{what} of {name} is not async: declare it as async def, and await what takes time"
        try:
            inspect.signature(function).bind("effect", "call")
        except TypeError:
            given = "effect, why" if what == "give_up" else "effect, call"
            yield f"{what} of {name} is called with ({given}), and takes {inspect.signature(function)!s:.200}"
        except ValueError:
            continue
