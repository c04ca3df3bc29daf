"""Ids of idempotency keys that belong to somebody."""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.access.keyed_ids import CLOCKS_DIFFER_S, KeyedIds, SecretsUnknown
from coordinator.client.database import LaneElsewhere
from coordinator.client.idempotency_secrets import LaneSecrets
from coordinator.service.errors import DatabaseUnavailable, InvalidCommand
from coordinator.service.ids import command_id_for, is_system_id, is_uuid, scoped_command_id_for
from coordinator.service.principal import Principal
from coordinator.stores.idempotency import (
    NEW_LANE_COUNTS_S,
    SECRET_COUNTS_S,
    SECRET_SETTLES_S,
    first_secrets,
    new_secret,
)
from coordinator.stores.lane_tables import IdempotencySecret

SECRET = "7" * 64
ADA = Principal(subject="ada")
NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)


def id_of(key: str = "order-1", lane: str = "seats", subject: str = "ada", tenant: str | None = None) -> str:
    return scoped_command_id_for(SECRET, lane, key, subject=subject, tenant=tenant)


@given(
    st.tuples(st.none() | st.text(max_size=3), *[st.text(max_size=3)] * 3),
    st.tuples(st.none() | st.text(max_size=3), *[st.text(max_size=3)] * 3),
)
def test_two_scopes_never_share_an_id(
    one: tuple[str | None, str, str, str], other: tuple[str | None, str, str, str]
) -> None:
    ids = [
        scoped_command_id_for(SECRET, lane, key, subject=subject, tenant=tenant)
        for tenant, subject, lane, key in (one, other)
    ]
    assert (ids[0] == ids[1]) == (one == other)


def test_the_id_is_an_ordinary_one_that_nobody_can_compute() -> None:
    assert is_uuid(id_of())
    assert not is_system_id(id_of())
    assert id_of() == id_of()
    assert id_of() != command_id_for("seats", "order-1")
    assert id_of() != scoped_command_id_for("8" * 64, "seats", "order-1", subject="ada")


def test_what_makes_no_id_is_refused() -> None:
    with pytest.raises(InvalidCommand):
        id_of("\ud800")
    with pytest.raises(ValueError, match="empty"):
        scoped_command_id_for("", "seats", "order-1", subject="ada")


async def made(*reads: Sequence[IdempotencySecret] | Exception) -> KeyedIds:
    answers = list(reads)

    async def read() -> LaneSecrets:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return LaneSecrets(answer)

    ids = KeyedIds(read)
    await ids.start()
    return ids


async def test_the_highest_secret_is_in_use_and_the_others_are_those_of_before() -> None:
    earlier, now = first_secrets(is_new=False), new_secret(2).replace(made_at=NOW)
    ids = await made([now, *reversed(earlier)])
    assert ids.id_for(ADA, "seats", "k") == scoped_command_id_for(now.secret, "seats", "k", subject="ada")
    assert [each.command_id for each in ids.former_ids_for(ADA, "seats", "k")] == [
        scoped_command_id_for(earlier[1].secret, "seats", "k", subject="ada"),
        command_id_for("seats", "k"),
    ]
    await ids.close()


COUNTED_S = timedelta(seconds=SECRET_COUNTS_S + SECRET_SETTLES_S + CLOCKS_DIFFER_S)
OWN = Principal(subject="ada", tenant="acme").as_logged
OTHERS = [Principal(subject=subject, tenant=tenant).as_logged for subject, tenant in (("eve", "acme"), ("ada", None))]


async def test_under_an_id_of_a_former_secret_a_principal_finds_what_is_his_own_of_that_time() -> None:
    second, first, none = new_secret(2), new_secret(1), IdempotencySecret(id=0, secret="", made_at=NOW)
    second, first = second.replace(made_at=NOW), first.replace(made_at=NOW - timedelta(days=1))
    for newest in ([], [new_secret(3).replace(made_at=NOW + timedelta(hours=1))]):
        ids = await made([*newest, second, first, none])
        of_first = ids.former_ids_for(Principal(subject="ada", tenant="acme"), "seats", "k")[-2]
        assert of_first.is_of(OWN, NOW - timedelta(days=1))
        assert of_first.is_of(OWN, NOW + COUNTED_S), "it counted on, and the clocks of machines differ"
        assert not of_first.is_of(OWN, NOW + COUNTED_S + timedelta(milliseconds=1))
        for actor in (None, *OTHERS, Principal(subject="amqp:gateway").as_logged):
            assert not of_first.is_of(actor, NOW - timedelta(days=1))
        await ids.close()


async def test_under_an_id_without_a_secret_he_finds_what_nobody_asked_for_who_was_known() -> None:
    secret, none = new_secret(1).replace(made_at=NOW), IdempotencySecret(id=0, secret="", made_at=NOW)
    ids = await made([secret, none])
    (former,) = ids.former_ids_for(Principal(subject="ada", tenant="acme"), "seats", "k")
    # A gateway may have let everybody in afterwards.
    assert former.is_of(None, NOW - timedelta(days=1))
    assert former.is_of(None, NOW + timedelta(days=1))
    for actor in (OWN, *OTHERS, Principal(subject="amqp:gateway").as_logged):
        assert not former.is_of(actor, NOW - timedelta(days=1))
    await ids.close()


async def test_where_the_lane_has_never_run_a_secret_counts_while_it_is_read_and_one_of_a_move_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each migration makes a secret, and a move brings the lane's own."""
    made_here, moved = new_secret(1), [new_secret(2).replace(made_at=NOW - timedelta(days=1)), new_secret(1)]
    found: LaneSecrets | Exception = LaneSecrets([made_here], has_run=False)
    offset_s = 0.0
    monotonic = time.monotonic
    monkeypatch.setattr("coordinator.access.keyed_ids.time.monotonic", lambda: monotonic() + offset_s)

    async def read() -> LaneSecrets:
        if isinstance(found, Exception):
            raise found
        return found

    ids = KeyedIds(read)
    await ids._refresh()
    assert ids.id_for(ADA, "seats", "k") == scoped_command_id_for(made_here.secret, "seats", "k", subject="ada")
    found, offset_s = DatabaseUnavailable("away"), NEW_LANE_COUNTS_S
    await ids._refresh()
    with pytest.raises(SecretsUnknown):
        ids.id_for(ADA, "seats", "k")
    for is_seen_coming in (False, True):
        if is_seen_coming:
            found = LaneSecrets([made_here], has_run=False)
            await ids._refresh()
            found = LaneElsewhere("yet to come")
            await ids._refresh()
            with pytest.raises(SecretsUnknown):
                ids.id_for(ADA, "seats", "k")
        found = LaneSecrets(moved)
        await ids._refresh()
        own = scoped_command_id_for(moved[0].secret, "seats", "k", subject="ada")
        assert ids.id_for(ADA, "seats", "k") == own, "it was made yesterday, though it was never read before"


async def test_what_a_lane_has_as_its_gateways_own_is_his_who_asks_that_gateway() -> None:
    """Such a lane does not believe the gateway (LANE_GATEWAY_ACCOUNTS), and has nobody else in its log."""
    rows = [new_secret(2).replace(made_at=NOW), new_secret(1)]

    async def read() -> LaneSecrets:
        return LaneSecrets(rows)

    ids = KeyedIds(read, account="gateway")
    await ids.start()
    (former,) = ids.former_ids_for(ADA, "seats", "k")
    assert former.is_of(Principal(subject="amqp:gateway").as_logged, NOW)
    assert former.is_of(ADA.as_logged, NOW)
    assert not former.is_of(Principal(subject="amqp:other").as_logged, NOW)
    await ids.close()


async def until_it_can(ids: KeyedIds) -> None:
    while await ids.problem() is not None:  # noqa: ASYNC110  # it tells nobody
        await asyncio.sleep(0.001)


async def test_without_the_secret_no_id_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """With another id the same request would be another command, once the secret is there."""
    monkeypatch.setattr("coordinator.access.keyed_ids.READ_AGAIN_S", 0.001)
    nothing_settled = IdempotencySecret(id=0, secret="", made_at=datetime.now(UTC))
    secret = new_secret(1)
    ids = await made(DatabaseUnavailable("away"), KeyError("a defect"), [], [nothing_settled], [secret])
    with pytest.raises(SecretsUnknown):
        ids.id_for(ADA, "seats", "k")
    assert await ids.problem() is not None
    async with asyncio.timeout(5):
        await until_it_can(ids)
    assert ids.id_for(ADA, "seats", "k") == scoped_command_id_for(secret.secret, "seats", "k", subject="ada")
    await ids.close()
