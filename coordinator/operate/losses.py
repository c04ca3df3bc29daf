"""`coordinator accept-loss`: a lane goes on though its database has lost acknowledged commands."""

import asyncio
from pathlib import Path
from typing import Final

import click
import msgspec

from coordinator.arguments import LANE, Whole
from coordinator.exemplified import Exemplified
from coordinator.lane.accepted_loss import IN_RABBITMQ, MarkPlace, why_not_accepted, why_word_is_not_enough
from coordinator.lane.high_water import Mark
from coordinator.operate.acts import act_of, reason_option
from coordinator.operate.one_process import database_at_work, database_of, mark_beside
from coordinator.operate.open import lane_admin
from coordinator.operate.output import CommandRefused, cell, json_option, now, print_json, refusing
from coordinator.runtime.settings import BrokerSettings, load
from coordinator.service.errors import BrokerUnavailable, ConfigurationError
from coordinator.stores.admin import LaneAdmin, LeaseState
from coordinator.stores.audit import ActQuery
from coordinator.stores.lineages import given_up_to
from coordinator.transports.inprocess.journal import journal_beside
from coordinator.transports.redis.keys import kept_key

_ACT: Final = "accept-loss"
_ACTS_LOOKED_AT: Final = 100


@click.command(_ACT, cls=Exemplified, example="accept-loss seats --at 48211 --up-to 48307")
@click.argument("lane", type=LANE)
@click.option("--at", "sequence", required=True, type=Whole(0), help="The sequence with which its database ends.")
@click.option("--up-to", required=True, type=Whole(0), help="The last sequence that was acknowledged.")
@click.option("--without-mark", is_flag=True, help="There is no mark of the lane: the loss is your word alone.")
@reason_option
@json_option
@refusing
def accept_loss(lane: str, sequence: int, up_to: int, reason: str | None, *, without_mark: bool, as_json: bool) -> None:
    """Let LANE go on although its database has lost the commands after the sequence `--at`, `--up-to` another.

    A lane whose database ends before the last acknowledged command stops, and names both sequences. With this command
    it goes on above the last one: it gives out no lost sequence again, and no lost id that the mark or a process of the
    lane knows. The commands stay lost, unless their publishers send them again. A later loss is another, and stops the
    lane again. So does a database that is not the one in which the lane's commands were applied: with this command the
    lane goes on there, above both.

    The mark that the lane keeps, in RabbitMQ or in process beside its database, must show the loss. Where there is
    none, since it is lost too, --without-mark takes your word for up to a thousand million commands. It is refused
    where there is one; where RabbitMQ cannot be asked, it says so.
    """
    with lane_admin(lane) as admin:
        _check_end(lane, admin, admin.sequence(), sequence)
        mark, place, unknown = _looked_up(lane, is_needed=not without_mark)
        state = admin.state()
        lease, lineage = state.lease, None if mark is None else mark.lineage
        is_other = lease is not None and (
            lease.is_other(lineage) or _is_given_up_before(lease, mark) or _has_gone_on_by_itself(admin, lease, mark)
        )
        why = why_word_is_not_enough if without_mark else why_not_accepted
        problem = why(lane, sequence, up_to, mark, place, is_other=is_other)
        if problem is not None:
            raise CommandRefused(f"{problem}: nothing was accepted")
        last = state.last_settled
        if last is not None and last.sequence > max(sequence, up_to):
            # The lease alone was lost, and no sequence may be given out twice.
            raise CommandRefused(f"its log has the sequence {last.sequence}, and not {up_to}: nothing was accepted")
        # What was accepted before, and the lane has yet to go above, stays so: somebody may know of that.
        up_to = max(up_to, 0 if lease is None else lease.lost_up_to or 0)
        act = act_of(lane, _ACT, reason, sequence=sequence, up_to=up_to, without_mark=without_mark)
        _check_end(lane, admin, admin.accept_loss(sequence, up_to, now(), act, lineage=lineage), sequence)
        lease = admin.state().lease
    paused = None if lease is None else lease.paused
    if as_json:
        fields = {"lane": lane, "sequence": sequence, "up_to": up_to, "without_mark": without_mark, "paused": paused}
        print_json(fields)
        return
    lost = (
        f", though the sequences {sequence + 1} to {up_to} are lost"
        if up_to > sequence
        else " in this database: what only the other one has is given up"
    )
    click.echo(
        f"{lane} may go on{lost}" + (f", once `coordinator resume {lane}` ends its pause ({paused})" if paused else "")
    )
    if without_mark:
        click.echo(
            f"coordinator: that anything is lost of {lane} is your word alone"
            + (f", and whether it has a mark is not known ({unknown})" if unknown else "")
            + ". If one of its processes knows of more "
            f"than {up_to}, it stays blocked and says so (`/readyz`, `lane_suspended`). If none knows which ids were "
            "given out, they are given out again, unless you raise them before its next command (docs/OPERATING.md, "
            "Backups)",
            err=True,
        )
    elif mark is not None and up_to > mark.sequence:
        click.echo(
            f"coordinator: the mark of {lane} knows only the ids that were given out up to the sequence "
            f"{mark.sequence}. If none of its processes knows of more, those after that are given out again, unless "
            "you raise them before its next command (docs/OPERATING.md, Backups)",
            err=True,
        )


def _is_given_up_before(lease: LeaseState, mark: Mark | None) -> bool:
    """Whether whoever gave up the lineage of the mark for that of the database did not know of as much of it."""
    if mark is None or (up_to := given_up_to(lease.lineage, lease.supersedes, mark.lineage)) is None:
        return False
    return mark.sequence > up_to


def _has_gone_on_by_itself(admin: LaneAdmin, lease: LeaseState, mark: Mark | None) -> bool:
    """Whether the database is a copy of the lane's that has other commands than that."""
    if mark is None or mark.last is None or lease.lineage is None or lease.lineage != mark.lineage:
        return False
    return mark.last.is_belied_by(admin.command_at(mark.last.sequence))


def _check_end(lane: str, admin: LaneAdmin, found: int, sequence: int) -> None:
    if found == sequence:
        return
    for act in admin.acts(ActQuery(act=_ACT), None, _ACTS_LOOKED_AT):
        details = msgspec.json.decode(act.details, type=dict[str, object])
        if details.get("sequence") == sequence:
            # Who did not hear of it asks again.
            raise CommandRefused(
                f"{lane} has gone on to sequence {found}: its loss of the sequences after {sequence} up to "
                f"{details.get('up_to')} was accepted at {cell(act.done_at)} by {act.author}, and nothing more is now"
            )
    raise CommandRefused(f"the database of {lane} ends at sequence {found}, not at {sequence}: nothing was accepted")


def _looked_up(lane: str, *, is_needed: bool) -> tuple[Mark | None, MarkPlace, str]:
    """The mark of a lane, where it is, and why nobody can tell; None: there is none, or nobody can tell.

    Raises BrokerUnavailable where nobody can tell and it is needed, CommandRefused where a file cannot be read.
    """
    if (database := database_of(lane)) is not None:
        return *_beside(database, lane), ""
    if (database := database_at_work(lane)) is not None:
        # Its process also knows what the broker has told it, and is blocked by what it knows.
        mark, place = _beside(database, lane)
        if mark is not None:
            return mark, place, ""
    if not load(BrokerSettings).is_rabbitmq:
        return _in_redis(lane, is_needed=is_needed)
    # Only who asks the broker needs the library for it.
    from coordinator.transports.rabbitmq.errors import NOT_FOUND, ClosedByBroker  # noqa: PLC0415
    from coordinator.transports.rabbitmq.marks import MarkHeld  # noqa: PLC0415

    try:
        return asyncio.run(_read_mark(lane)), IN_RABBITMQ, ""
    except ClosedByBroker as error:
        if error.reply_code == NOT_FOUND:
            return None, IN_RABBITMQ, ""
        raise
    except MarkHeld as error:
        raise CommandRefused(f"{error}; try again: nothing was accepted") from error
    except BrokerUnavailable as error:
        if not is_needed:
            return None, IN_RABBITMQ, str(error)
        raise BrokerUnavailable(
            f"{error}. It keeps the mark of {lane}, which shows the loss; --without-mark takes your word for it"
        ) from error


def _beside(database: Path, lane: str) -> tuple[Mark | None, MarkPlace]:
    try:
        mark = mark_beside(database, lane)
    except ConfigurationError as error:
        text = f"the mark of {lane} cannot be read, end its process and try again: {error}: nothing was accepted"
        raise CommandRefused(text) from error
    file = journal_beside(database)
    return mark, MarkPlace(f"in {file}", "end its process, and empty the table `mark` of that file with `sqlite3`")


def _in_redis(lane: str, *, is_needed: bool) -> tuple[Mark | None, MarkPlace, str]:
    from coordinator.operate.redis_broker import connected_to_redis  # noqa: PLC0415

    place = MarkPlace("in Redis", f"stop its coordinators, `HDEL {kept_key(lane)} mark`, and start them")
    try:
        with connected_to_redis(load(BrokerSettings)) as queues:
            return queues.mark(lane), place, ""
    except BrokerUnavailable as error:
        if not is_needed:
            return None, place, str(error)
        raise BrokerUnavailable(
            f"{error}. It keeps the mark of {lane}, which shows the loss; --without-mark takes your word for it"
        ) from error


async def _read_mark(lane: str) -> Mark | None:
    from coordinator.transports.rabbitmq.amqp import AmqpConnection  # noqa: PLC0415
    from coordinator.transports.rabbitmq.marks import read_mark  # noqa: PLC0415

    connection = await AmqpConnection.open(load(BrokerSettings), "operator accept-loss")
    try:
        return await read_mark(connection, lane)
    finally:
        await connection.end()
