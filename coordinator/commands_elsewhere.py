"""The commands that other modules define. Each is imported when it is used: help, and the others, start at once."""

from collections.abc import Mapping
from importlib import import_module
from typing import Final, NamedTuple

import click

from coordinator.exemplified import ExemplifiedGroup


class Elsewhere(NamedTuple):
    """A command that is not imported yet."""

    place: str
    """`module:ATTRIBUTE`"""
    summary: str
    """Its line in the list of commands, which fits a terminal of 80 characters."""


ELSEWHERE: Final[Mapping[str, Elsewhere]] = {
    name: Elsewhere(f"coordinator.{place}", summary)
    for name, place, summary in (
        ("accept-loss", "operate.losses:accept_loss", "Let LANE go on although its database lost commands."),
        ("audit", "operate.audit:audit", "Show who changed a row, when, and by which command."),
        ("broker-accounts", "accounts.broker:broker_accounts_command", "Print how the broker gets its accounts."),
        ("cancel", "operate.lanes:cancel", "Keep a command from ever being applied."),
        ("command", "operate.command:show_command", "Show where a command stands, its outcome and its times."),
        ("continue", "operate.continuing:continue_", "Send the continuation of a settled command again."),
        ("database-accounts", "accounts.database:database_accounts_command", "Print how databases get their roles."),
        ("dead", "operate.dead:dead", "Dead letters: what could not be applied, or understood."),
        ("dev", "dev.cli:dev", "Run the whole system on this machine."),
        ("drain", "operate.send:drain", "Wait until all that is in the queue of LANE is settled."),
        ("find", "operate.find:find", "Find a saga, row or command, and say why it is stuck."),
        ("forget", "operate.forget:forget", "Take a person's data out of LANE's log and dead letters."),
        ("grow", "operate.grow:grow", "Print how queues get a member on another node."),
        ("guard", "operate.guard:guard", "Take away what lets others write the tables of LANE."),
        ("keys", "operate.keys:keys_group", "The API keys of callers."),
        ("log", "operate.lanes:log_group", "The command log."),
        ("move", "operate.move:move", "Move LANE to another database while it runs."),
        ("new", "dev.new:new", "Make a project with a service and its tests."),
        ("outbox", "operate.outbox:outbox", "What lanes have emitted, and have not published yet."),
        ("parked", "operate.parked:parked", "List the keys for which commands wait, and behind which."),
        ("pause", "operate.lanes:pause", "Stop LANE from committing, until `resume`."),
        ("queue", "operate.queue:queue_group", "The queues of lanes and of effects."),
        ("release", "operate.parked:release", "Let the commands that wait for a parked key go on."),
        ("resume", "operate.lanes:resume", "Let a paused LANE go on."),
        ("send", "operate.send:send", "Publish one command, and print its id."),
        ("status", "operate.status:status", "Show who holds the lanes, what waits, what failed."),
        ("timers", "operate.timers:timers", "What handlers have emitted for later."),
        ("top", "operations.cli:top", "Show the lanes live: what they do, and why not."),
        ("writers", "operate.writers:writers", "Show what else can write the tables of lanes."),
    )
}


class LoadingGroup(ExemplifiedGroup):
    """A group with commands of its own, and those of ELSEWHERE."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *ELSEWHERE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in ELSEWHERE:
            module, _, attribute = ELSEWHERE[cmd_name].place.partition(":")
            found = getattr(import_module(module), attribute)
            if not isinstance(found, click.Command):
                raise TypeError(f"{ELSEWHERE[cmd_name].place} is no command")
            return found
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, as click writes it; none of them is loaded for it."""
        names = self.list_commands(ctx)
        limit = formatter.width - 6 - max(map(len, names))
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._summary(name, limit)) for name in names])

    def _summary(self, name: str, characters_max: int) -> str:
        if name in ELSEWHERE:
            return ELSEWHERE[name].summary
        return self.commands[name].get_short_help_str(characters_max)
