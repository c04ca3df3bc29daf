"""`coordinator top`, for the command line to register."""

import sys

import click

from coordinator.arguments import COORDINATORS, LANE, Seconds
from coordinator.exemplified import Exemplified
from coordinator.operate.output import json_option
from coordinator.operate.repeating import rounds_option
from coordinator.registry import registry


@click.command(cls=Exemplified, example="top seats --every-s 2", looks=True)
@click.argument("lanes", nargs=-1, type=LANE)
@click.option("--every-s", type=Seconds(0.1, 60), default=1.0, show_default=True, help="How often it looks.")
@COORDINATORS
@rounds_option
@json_option
def top(
    lanes: tuple[str, ...], every_s: float, coordinators: tuple[str, ...], rounds: int | None, *, as_json: bool
) -> None:
    """Show LANES (all, if none is named) live: what they do and why not, latencies, types of commands, failures.

    MS are from a command's id, which has the time at which it was issued, until its lane settled it. The types are
    those of each lane's last commands. With --json each line is one JSON value.
    """
    # Without it the command line knows of the command, and loads no more than that.
    from coordinator.operations.top import top as show  # noqa: PLC0415

    sys.exit(show(lanes or registry().names, coordinators, every_s, rounds, as_json=as_json))
