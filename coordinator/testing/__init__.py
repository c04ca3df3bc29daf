"""Trying handlers without a server: the lane of a service, one command after the other, and what may happen to it.

The pytest plugin, with the fixture `lane`, is `write_coordinator_pytest`, a module beside this package.
"""

import importlib
import typing

from coordinator.runtime.extras import naming_the_extra as _naming_the_extra

if typing.TYPE_CHECKING:
    from coordinator.testing.gateway import served
    from coordinator.testing.lane import NOW, Emitted, LaneInMemory, LaneUnderTest, Tried
    from coordinator.testing.never_applied import NeverApplied
    from coordinator.testing.older import Older
    from coordinator.testing.outside import Answer, Outside
    from coordinator.testing.simulation import Commands, SimulationFailed, simulate
    from coordinator.testing.strategies import commands_of

__all__ = (
    "NOW",
    "Answer",
    "Commands",
    "Emitted",
    "LaneInMemory",
    "LaneUnderTest",
    "NeverApplied",
    "Older",
    "Outside",
    "SimulationFailed",
    "Tried",
    "commands_of",
    "served",
    "simulate",
)

# Loaded when asked for: `simulate` alone needs hypothesis.
_MODULES = {
    "NOW": "coordinator.testing.lane",
    "Answer": "coordinator.testing.outside",
    "Emitted": "coordinator.testing.lane",
    "LaneInMemory": "coordinator.testing.lane",
    "LaneUnderTest": "coordinator.testing.lane",
    "NeverApplied": "coordinator.testing.never_applied",
    "Older": "coordinator.testing.older",
    "Outside": "coordinator.testing.outside",
    "Tried": "coordinator.testing.lane",
    "Commands": "coordinator.testing.simulation",
    "SimulationFailed": "coordinator.testing.simulation",
    "served": "coordinator.testing.gateway",
    "simulate": "coordinator.testing.simulation",
    "commands_of": "coordinator.testing.strategies",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with _naming_the_extra():
        return getattr(importlib.import_module(_MODULES[name]), name)
