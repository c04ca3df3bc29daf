"""What the model expects of histories that no seed of `make test` has."""

from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import msgspec

from coordinator.protocol.wire import CommandMessage
from coordinator.service.commands import Command
from coordinator.stores.lane_tables import LogEntry
from tests.simulation.model import Model
from tests.simulation.services import MENDED
from tests.simulation.world import World
from tests.support.ledger import Fragile, OpenAccount, Remark, Tamper


def judged(model: Model, sequence: int, command: Command, *, code: str | None = None, **result: object) -> str | None:
    """What is wrong with an entry of this command; None: nothing."""
    message = CommandMessage(command_id=f"id-{sequence}", type=command.type, arguments=msgspec.json.encode(command))
    entry = LogEntry(
        command_id=f"id-{sequence}",
        sequence=sequence,
        epoch=1,
        type=command.type,
        fingerprint="",
        status="applied" if code is None else "failed",
        result=None if code is not None else msgspec.json.encode(result).decode(),
        error_code=code,
        error_message=None,
        settled_at=datetime(2026, 11, 22, tzinfo=UTC),
    )
    return model.check(entry, message, set())


def test_whoever_comes_between_a_note_that_is_too_long_and_its_undoing_sees_it() -> None:
    with closing(World(1)) as world:
        model = Model("ledger", world.databases["ledger"])
    account: dict[str, Any] = {"id": 1, "owner": "a"}
    assert judged(model, 1, OpenAccount(owner="a"), **account, balance=0, version=1) is None
    assert judged(model, 2, Remark(id=1, note=MENDED), **account, balance=0, version=2) is None
    assert judged(model, 3, Fragile(id=1, amount=5), **account, balance=5, version=3) is None
    assert judged(model, 4, Tamper(id=1, how="too long"), **account, balance=12, version=5) is None
    assert judged(model, 5, Fragile(id=1, amount=5), code="handler_error") is None
    assert judged(model, 6, Remark(id=1, note=None), **account, balance=12, version=6) is None
    assert judged(model, 7, Fragile(id=1, amount=5), code="handler_error") is None
