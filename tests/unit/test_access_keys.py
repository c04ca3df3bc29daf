"""A gateway's ring of API keys goes on being read, whatever a reading raises."""

import asyncio
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from coordinator.access.api_keys import KeyRing, MadeKey
from coordinator.access.authenticator import NotAuthentic
from coordinator.service.errors import DatabaseUnavailable, UnreadableRow
from coordinator.stores.lane_tables import ApiKey

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("error", [DatabaseUnavailable("away"), UnreadableRow("api_keys.subject: None"), KeyError()])
async def test_a_key_that_is_revoked_after_a_reading_that_failed_counts_no_longer(error: Exception) -> None:
    made = MadeKey()
    key = ApiKey(id=made.id, digest=made.digest, subject="ada", tenant=None, scopes="", created_at=NOW, created_by="op")
    assert key.digest == hashlib.sha256(made.text[-43:].encode()).hexdigest()
    readings: list[Sequence[ApiKey] | Exception] = [[key], error, [key.replace(revoked_at=NOW)]]
    all_read = asyncio.Event()

    async def read() -> Sequence[ApiKey]:
        if len(readings) == 1:
            all_read.set()
            return readings[0]  # type: ignore[return-value]  # it is the last one
        reading = readings.pop(0)
        if isinstance(reading, Exception):
            raise reading
        return reading

    ring = KeyRing(read, 0.001)
    await ring.start()
    assert (await ring.principal_of(made.text)).subject == "ada"
    await asyncio.wait_for(all_read.wait(), 5)
    with pytest.raises(NotAuthentic, match="revoked"):
        await ring.principal_of(made.text)
    assert await ring.problem() is None
    await ring.close()
