"""Ids of idempotency keys that belong to somebody."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.access.keyed_ids import KeyedIds, SecretsUnknown
from coordinator.service.errors import DatabaseUnavailable, InvalidCommand
from coordinator.service.ids import command_id_for, is_system_id, is_uuid, scoped_command_id_for
from coordinator.service.principal import Principal
from coordinator.stores.idempotency import first_secrets, new_secret
from coordinator.stores.lane_tables import IdempotencySecret

SECRET = "7" * 64
ADA = Principal(subject="ada")


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

    async def read() -> Sequence[IdempotencySecret]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    ids = KeyedIds(read)
    await ids.start()
    return ids


async def test_the_highest_secret_is_in_use_and_the_others_are_those_of_before() -> None:
    earlier, now = first_secrets(has_settled=True), new_secret(2)
    ids = await made([now, *reversed(earlier)])
    assert ids.id_for(ADA, "seats", "k") == scoped_command_id_for(now.secret, "seats", "k", subject="ada")
    assert ids.former_ids_for(ADA, "seats", "k") == [
        scoped_command_id_for(earlier[1].secret, "seats", "k", subject="ada"),
        command_id_for("seats", "k"),
    ]
    await ids.close()


async def test_without_the_secret_no_id_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """With another id the same request would be another command, once the secret is there."""
    monkeypatch.setattr("coordinator.access.keyed_ids.READ_AGAIN_S", 0.001)
    nothing_settled = IdempotencySecret(id=0, secret="", made_at=datetime.now(UTC))
    secret = new_secret(1)
    ids = await made(DatabaseUnavailable("away"), [], [nothing_settled], [secret])
    with pytest.raises(SecretsUnknown):
        ids.id_for(ADA, "seats", "k")
    assert await ids.problem() is not None
    assert ids._reading is not None
    await asyncio.wait_for(ids._reading, 5)
    assert await ids.problem() is None
    assert ids.id_for(ADA, "seats", "k") == scoped_command_id_for(secret.secret, "seats", "k", subject="ada")
    await ids.close()
