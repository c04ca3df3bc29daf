"""What operators do to a lane on a page. Each act has an author and a reason, and is recorded. All of it blocks."""

import click
from msgspec import Struct

from coordinator.lane.control import Marker
from coordinator.operate import output
from coordinator.operate.acts import act_by
from coordinator.operate.cancelling import cancel_command, check_somebodys
from coordinator.operate.giving_orders import issue
from coordinator.operate.open import lane_admin
from coordinator.operate.output import CommandRefused, Misused, now
from coordinator.operations.kept_admins import SILENCE_S
from coordinator.protocol.wire import CommandMessage
from coordinator.service.ids import is_uuid, new_command_id


class Done(Struct, frozen=True, kw_only=True):
    """What an act has done, in words."""

    lane: str
    said: str
    sequence: int | None = None


def checked_reason(text: str) -> str:
    """A reason, as it is kept. Raises Misused."""
    try:
        return output.reason(text)
    except click.BadParameter as error:
        raise Misused(f"say why: {error.message}") from None


def pause(lane: str, author: str, reason: str) -> Done:
    """Stop a lane from committing. Raises Unavailable."""
    with lane_admin(lane, silence_s=SILENCE_S) as admin:
        lease = admin.pause(reason, now(), act_by(author, lane, "pause", reason))
    return Done(lane=lane, said=f"{lane} is paused at sequence {lease.sequence}", sequence=lease.sequence)


def resume(lane: str, author: str, reason: str) -> Done:
    """Let a paused lane go on. Raises Unavailable."""
    with lane_admin(lane, silence_s=SILENCE_S) as admin:
        paused = admin.resume(now(), act_by(author, lane, "resume", reason))
    said = f"{lane} was not paused" if paused is None else f"{lane} goes on (it was paused: {paused})"
    return Done(lane=lane, said=said)


def cancel(lane: str, author: str, reason: str, command_id: str) -> Done:
    """Keep a command from ever being applied. Raises what `cancel_command` does, and Unavailable."""
    command_id = command_id.strip().lower()
    if not is_uuid(command_id):
        raise Misused(f"{command_id[:40]!r} is no command id: it must be a UUID")
    check_somebodys(command_id)
    with lane_admin(lane, silence_s=SILENCE_S) as admin:
        act = act_by(author, lane, "cancel", reason, command_id=command_id)
        said = cancel_command(admin, lane, command_id, reason, act)
    return Done(lane=lane, said=said)


def drain(lane: str, author: str, reason: str, wait_s: float) -> Done:
    """Wait until all that is in the queue now is settled. Raises CommandRefused where it is paused, Unavailable."""
    with lane_admin(lane, silence_s=SILENCE_S) as admin:
        lease = admin.state().lease
        if lease is not None and lease.paused is not None:
            raise CommandRefused(f"lane {lane} is paused ({lease.paused}), so it will not drain: resume it first")
        admin.record(act_by(author, lane, "drain", reason))
    message = CommandMessage(command_id=new_command_id(), type=Marker.type, arguments=b"{}", origin="system")
    outcome = issue(lane, message, wait_s)
    if outcome is None:
        said = f"{lane} is not drained within {wait_s:g} s: it goes on, and its backlog shows how far"
        return Done(lane=lane, said=said)
    if outcome.status != "applied" or outcome.sequence is None:
        code = outcome.error.code if outcome.error is not None else outcome.status
        raise CommandRefused(f"the coordinator of lane {lane} does not settle markers ({code}): upgrade it")
    said = f"{lane} is drained: everything up to sequence {outcome.sequence} is settled"
    return Done(lane=lane, said=said, sequence=outcome.sequence)
