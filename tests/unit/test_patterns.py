"""No regular expression of the product goes back over what it has read: whoever sends text pays for it once."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
import pytest

import coordinator
import gateways
import shared
from coordinator.service.commands import Command
from tests.support.cost import adversarial, assert_grows_with_length

Reader = Callable[[str], object]

LONGEST = 8190
"""The longest field of a request's head."""


def modules() -> Iterator[str]:
    for package in (gateways, shared, coordinator):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            # Migrations are run by alembic alone; a __main__ runs.
            if not found.name.endswith("__main__") and ".migrations" not in found.name:
                yield found.name


def readers() -> Iterator[tuple[str, Reader]]:
    """Every pattern that a module names, each with the ways in which that module reads with it."""
    for name in modules():
        module = importlib.import_module(name)
        for attribute, value in vars(module).items():
            if isinstance(value, re.Pattern):
                for way in set(re.findall(rf"\b{attribute}\.(\w+)\(", inspect.getsource(module))):
                    yield f"{name}.{attribute}.{way}", reading(value, way)


def reading(pattern: re.Pattern[Any], way: str) -> Reader:
    """How a module reads with a pattern, of text or of bytes, as a function of text."""
    is_text = isinstance(pattern.pattern, str)
    read = getattr(pattern, way)
    if way == "sub":
        read = partial(read, "" if is_text else b"")
    return read if is_text else lambda text: read(text.encode())


def commands(base: type[Command]) -> Iterator[type[Command]]:
    for command in base.__subclasses__():
        yield command
        yield from commands(command)


def field_readers() -> Iterator[tuple[str, Reader]]:
    """The patterns of the commands' fields: msgspec searches with them."""
    for command in commands(Command):
        if command.__module__.startswith("tests."):
            # A test may have one that msgspec refuses.
            continue
        for pattern in _strings(msgspec.inspect.type_info(command)):
            yield pattern, re.compile(pattern).search


def _strings(info: object) -> Iterator[str]:
    match info:
        case msgspec.inspect.StrType(pattern=str(pattern)):
            yield pattern
        case msgspec.inspect.StructType(fields=fields):
            for field in fields:
                yield from _strings(field.type)
        case msgspec.inspect.Metadata(type=inner):
            yield from _strings(inner)
        case msgspec.inspect.UnionType(types=types):
            for each in types:
                yield from _strings(each)
        case msgspec.inspect.ListType(item_type=item):
            yield from _strings(item)


READERS = dict([*readers(), *field_readers()])


def test_the_readers_are_found() -> None:
    found = set(READERS)
    assert {
        "coordinator.http.headers._PREFERENCE.fullmatch",
        "coordinator.service.trace_context._TRACEPARENT.fullmatch",
    } < found
    assert any("@" in name for name in found)


@pytest.mark.parametrize("name", sorted(READERS))
def test_what_a_pattern_costs_grows_with_the_text(name: str) -> None:
    for make in adversarial():
        assert_grows_with_length(READERS[name], make, LONGEST)
