"""What runs in another process of `simulate`: it imports the service again, and applies commands one by one."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import cast

from msgspec import Struct

from coordinator.service.rows import Row
from coordinator.service.service import Service
from coordinator.testing.running import Course, Endless, Ran, run_one_by_one


class ServicePlace(Struct, frozen=True):
    """Where a service is found: under a name of a module, which is in this file."""

    module: str
    name: str
    file: str | None

    def __str__(self) -> str:
        return f"{self.module}:{self.name}"


class Start(Struct, frozen=True):
    """What a process needs to know at first. It works in `folder` from then on; None: where it was started."""

    place: ServicePlace
    folder: str | None


class Declared(Struct, frozen=True):
    """What a service is made of, to see that it is the same there: the types of its commands, and its tables."""

    commands: frozenset[str]
    tables: frozenset[str]


class Failed(Struct, frozen=True):
    """Why there is no answer."""

    reason: str


def declared_by(service: Service) -> Declared:
    """What this one is made of."""
    commands = frozenset(handler.command.type for handler in service.handlers)
    return Declared(commands, frozenset(model.table for model in service.models))


def serve(file_descriptor: int) -> None:
    """Answer until the other end is closed."""
    with Connection(file_descriptor) as connection:
        start: Start = connection.recv()
        try:
            service = _imported(start.place)
        except BaseException as error:  # noqa: BLE001  # whatever the author's module does
            connection.send(Failed(f"{type(error).__name__}: {error}"))
            return
        connection.send(declared_by(service))
        if start.folder is not None:
            os.chdir(start.folder)
        while True:
            try:
                course, given = cast("tuple[Course, Sequence[Row]]", connection.recv())
            except EOFError:
                return
            connection.send(_ran(service, course, given))


def _ran(service: Service, course: Course, given: Sequence[Row]) -> Ran | Failed:
    try:
        return run_one_by_one(service, course, given)
    except Endless as endless:
        return Failed(str(endless))


def _imported(place: ServicePlace) -> Service:
    try:
        module = importlib.import_module(place.module)
    except ModuleNotFoundError as error:
        # Of tests, which pytest may load by their files.
        if place.file is None or error.name is None or not f"{place.module}.".startswith(f"{error.name}."):
            raise
        spec = importlib.util.spec_from_file_location(place.module, place.file)
        if spec is None or spec.loader is None:
            raise
        module = sys.modules[place.module] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    service = getattr(module, place.name)
    if not isinstance(service, Service):
        raise TypeError(f"{place} is no Service there")
    return service
