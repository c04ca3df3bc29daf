"""For how long API keys count that cannot be read, and what becomes of them where their database has fallen back."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from coordinator.access.api_keys import KeyRing, KeysUnknown, MadeKey
from coordinator.access.authenticator import BEARER, NotAuthentic
from coordinator.client.database import LaneElsewhere
from coordinator.service.errors import DatabaseUnavailable
from coordinator.stores.lane_tables import ApiKey

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FAR = datetime(2999, 1, 1, tzinfo=UTC)
AGE_S = 60.0


class Database:
    """What is read of it next."""

    def __init__(self, *keys: ApiKey) -> None:
        self.keys: Sequence[ApiKey] | Exception = keys

    async def read(self) -> Sequence[ApiKey]:
        if isinstance(self.keys, Exception):
            raise self.keys
        return self.keys


def row_of(made: MadeKey, revoked_at: datetime | None = None) -> ApiKey:
    return ApiKey(
        id=made.id,
        digest=made.digest,
        subject="ada",
        tenant=None,
        scopes="",
        created_at=NOW,
        created_by="op",
        revoked_at=revoked_at,
    )


async def read(ring: KeyRing, database: Database, keys: Sequence[ApiKey] | Exception) -> list[dict[str, object]]:
    """What the log says where this is read next."""
    database.keys = keys
    with capture_logs() as lines:
        await ring._refresh()
    return [dict(line) for line in lines]


async def test_keys_that_cannot_be_read_for_too_long_count_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    made = MadeKey()
    database = Database(row_of(made))
    ring = KeyRing(database.read, AGE_S, age_s_max=AGE_S)
    with pytest.raises(KeysUnknown):
        await ring.principal_of(made.text)
    await ring._refresh()
    for error in (DatabaseUnavailable("away"), KeyError()):
        now_s += AGE_S / 2
        await read(ring, database, error)
        assert ring.known(BEARER + made.text) is not None
        assert (await ring.principal_of(made.text)).subject == "ada"
        assert (ring.knows_anybody, await ring.problem()) == (True, "the API keys cannot be read")
    now_s += 0.1
    assert (ring.knows_anybody, await ring.problem()) == (False, "the API keys cannot be read")
    assert ring.known(BEARER + made.text) is None
    with pytest.raises(KeysUnknown):
        await ring.principal_of(made.text)
    await read(ring, database, [row_of(made)])
    assert ring.known(BEARER + made.text) is not None


async def test_a_revoked_key_does_not_count_again_where_its_database_has_fallen_back() -> None:
    made, other = MadeKey(), MadeKey()
    database = Database()
    ring = KeyRing(database.read, AGE_S)
    await read(ring, database, [row_of(made), row_of(other)])
    assert await read(ring, database, [row_of(made, NOW), row_of(other)]) == []
    for again in range(2):
        # From a backup, or a standby that lacks the last commits.
        lines = await read(ring, database, [row_of(made), row_of(other)])
        assert [(line["event"], line["keys"]) for line in lines] == [("api_key_revocations_lost", [made.id])][again:]
        assert ring.known(BEARER + made.text) is None
        with pytest.raises(NotAuthentic, match="revoked"):
            await ring.principal_of(made.text)
        assert await ring.problem() == "API keys that were revoked are so in the database no more"
    assert (await ring.principal_of(other.text)).subject == "ada"
    await read(ring, database, LaneElsewhere("moved"))
    await read(ring, database, [row_of(made)])
    assert ring.known(BEARER + made.text) is None
    assert await read(ring, database, [row_of(made, FAR)]) == []
    assert await ring.problem() is None


async def test_a_key_that_was_forgotten_after_it_was_revoked_is_not_missed() -> None:
    made = MadeKey()
    database = Database()
    ring = KeyRing(database.read, AGE_S)
    await read(ring, database, [row_of(made, NOW)])
    assert await read(ring, database, []) == []
    assert await ring.problem() is None


async def test_a_key_that_was_made_in_the_lost_tail_ends_and_is_said() -> None:
    made = MadeKey()
    database = Database()
    ring = KeyRing(database.read, AGE_S)
    await read(ring, database, [row_of(made)])
    await read(ring, database, DatabaseUnavailable("it fails over"))
    assert ring.known(BEARER + made.text) is not None
    lines = await read(ring, database, [])
    assert [(line["event"], line["keys"], line["number"]) for line in lines if line["event"] != "api_keys_read"] == [
        ("api_keys_lost", [made.id], 1)
    ]
    with pytest.raises(NotAuthentic, match="no API key is known by it"):
        await ring.principal_of(made.text)
