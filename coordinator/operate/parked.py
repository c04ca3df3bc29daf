"""`coordinator parked`: commands that wait for their key behind one that failed."""

import click
import msgspec

from coordinator.arguments import LANE
from coordinator.operate.open import lane_admin
from coordinator.operate.output import json_option, print_json, print_table, refusing
from coordinator.registry import registry
from coordinator.stores.admin import ParkedKey


@click.command()
@click.argument("lanes", nargs=-1, type=LANE)
@json_option
@refusing
def parked(lanes: tuple[str, ...], *, as_json: bool) -> None:
    """List the keys of LANES (all, if none is named) for which commands wait, and behind which failed command.

    `dead replay` of that command, or `dead discard`, lets them go on.
    """
    found = [(lane, key) for lane in lanes or registry().names for key in keys_of(lane)]
    if as_json:
        print_json([{"lane": lane} | msgspec.to_builtins(key) for lane, key in found])
    else:
        print_table(
            ("LANE", "KEY", "BEHIND COMMAND", "REASON", "SINCE", "WAITING"),
            [
                (lane, key.ordering_key, key.failed_id, key.error_code, key.parked_at, len(key.waiting))
                for lane, key in found
            ],
        )


def keys_of(lane: str) -> list[ParkedKey]:
    """The keys of one lane for which commands wait. Raises DatabaseUnavailable, ConfigurationError."""
    with lane_admin(lane) as admin:
        rows = admin.parked()
    waiting: dict[str, list[str]] = {}
    for row in rows:
        if row.error_code is None:
            waiting.setdefault(row.ordering_key, []).append(row.command_id)
    return [
        ParkedKey(
            ordering_key=row.ordering_key,
            failed_id=row.command_id,
            error_code=row.error_code,
            parked_at=row.parked_at,
            waiting=waiting.get(row.ordering_key, []),
        )
        for row in rows
        if row.error_code is not None
    ]
