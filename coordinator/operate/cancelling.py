"""Keeping a command from ever being applied, for a person who has its id: from a page, or at a terminal."""

from coordinator.operate.output import CommandRefused, Misused, now
from coordinator.operate.relatives import emitter_of
from coordinator.service.ids import NOBODYS_WORDS, is_nobodys_id, is_system_id
from coordinator.service.outside_calls import EFFECTS_PREFIX
from coordinator.stores.admin import LaneAdmin
from coordinator.stores.audit_tables import OperatorAct


def check_somebodys(command_id: str) -> None:
    """Raise Misused for an id that no command has."""
    if is_nobodys_id(command_id):
        raise Misused(f"{command_id} is {NOBODYS_WORDS}")


def cancel_command(admin: LaneAdmin, lane: str, command_id: str, reason: str, act: OperatorAct) -> str:
    """Cancel it in its lane, and return what holds from now on.

    Raises CommandRefused where it is settled, and where this lane has emitted it to
    another one, or to a worker of effects: they do not ask here.
    """
    way = admin.on_its_way([command_id])[command_id]
    for waiting in (way.emitted, way.timer):
        if waiting is not None and waiting.target != lane:
            raise CommandRefused(_elsewhere(lane, command_id, waiting.target, is_timer=waiting is way.timer))
    # What the broker has confirmed is on its way no more, as far as this lane's tables say: its log says where it went.
    emitted = emitter_of(command_id, None, {lane: admin})
    if emitted is not None and emitted.child.lane not in (None, lane):
        raise CommandRefused(_elsewhere(lane, command_id, emitted.child.lane, is_timer=False))
    settled = admin.cancel(command_id, reason, now(), act)
    if settled is not None:
        raise CommandRefused(
            f"command {command_id} is settled already, as {settled.status} with sequence {settled.sequence}: "
            "it cannot be cancelled any more"
        )
    said = f"lane {lane} will not apply command {command_id}"
    if not is_system_id(command_id):
        return said
    # The log of a lane does not name the continuations that it has sent, and ids tell nobody where they went.
    return f"{said}; it is one that a lane has emitted: if it is for another lane, cancel it there"


def _elsewhere(lane: str, command_id: str, target: str, *, is_timer: bool) -> str:
    taken_back = f"`coordinator timers cancel {lane} {command_id}` takes it back until its time has come"
    if target.startswith(EFFECTS_PREFIX):
        todo = taken_back if is_timer else "no command keeps a worker from making it"
        return f"{command_id} is a call to the outside ({target}), and no command of lane {lane}: {todo}"
    todo = f"`coordinator cancel {command_id} --lane {target}` keeps it from being applied there"
    return f"command {command_id} goes from lane {lane} to {target}: {f'{taken_back}; ' if is_timer else ''}{todo}"
