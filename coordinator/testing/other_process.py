"""What runs in another process of `simulate`: it imports the service again, and applies commands one by one.

Each history has new processes, forked from this one, so its handlers know nothing of the histories before: this one has
imported the modules, and never calls a handler.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Final

from msgspec import Struct

from coordinator.service.rows import Row
from coordinator.service.service import Service
from coordinator.testing.running import Course, Endless, Ran, World, apply_one_by_one, plain_world

_FORKING: Final = get_context("fork")


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


class Trial(Struct, frozen=True):
    """Commands to be applied to these rows; with a takeover in their middle, by a process that has applied nothing."""

    course: Course
    given: Sequence[Row]
    is_taken_over: bool


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
        # What each process would import, or prepare, as the first.
        plain_world(service, ()).ran()
        while True:
            try:
                trial: Trial = connection.recv()
            except EOFError:
                return
            connection.send(_ran(service, trial))


def _ran(service: Service, trial: Trial) -> Ran | Failed:
    """What comes of it. Raises EOFError for a process that ends."""
    world: World | None = None
    for course in trial.course.halves() if trial.is_taken_over else (trial.course,):
        answer = _in_a_new_process(service, course, trial.given, world)
        if isinstance(answer, Failed):
            return answer
        world = answer
    if world is None:
        raise AssertionError("a course has one part or more")
    world.have(service)
    return world.ran()


def _in_a_new_process(service: Service, course: Course, given: Sequence[Row], world: World | None) -> World | Failed:
    here, there = _FORKING.Pipe(duplex=False)
    with here:
        with there:
            process = _FORKING.Process(target=_apply, args=(there, service, course, given, world))
            process.start()
        answer: World | Failed = here.recv()
    process.join()
    return answer


def _apply(connection: Connection, service: Service, course: Course, given: Sequence[Row], world: World | None) -> None:
    """In a world with these rows, or one as another process has left it."""
    if world is None:
        world = plain_world(service, given)
    else:
        world.have(service)
    try:
        apply_one_by_one(world, course)
    except Endless as endless:
        connection.send(Failed(str(endless)))
    else:
        connection.send(world)


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
