"""Commands that everybody may issue, at a gateway that asks who asks: where their outcomes are."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from coordinator import anybody, command_id_for
from coordinator.service.ids import system_command_id
from tests.unit.gateways.test_gateways_allow import NOTES, Asking, asking, notes

__all__ = ("notes",)


@pytest.mark.parametrize("who", [None, "ada", "nobody"])
async def test_the_place_of_an_outcome_has_it_for_whoever_was_not_asked_who_he_is(
    notes: Asking, who: str | None
) -> None:
    """Or he would take the 404 there for a command that was never issued, and issue it again under another id."""
    at_once = {"Prefer": "respond-async"}
    status, body, response = await notes.call(who, "POST", "/notes/commands/post", {"id": 1}, at_once)
    place = response.headers["Location"]
    assert (status, place) == (202, f"/commands/{body['command_id']}")
    asker = None if who == "nobody" else who
    async with asyncio.timeout(10):
        while (await notes.call(asker, "GET", place))[0] == 202:  # noqa: ASYNC110  # it is another's clock
            await asyncio.sleep(0.01)
    status, settled, _ = await notes.call(asker, "GET", place)
    assert (status, settled["status"], settled["result"]) == (200, "applied", {"id": 1})
    status, _, response = await notes.call(who, "POST", "/notes/commands/post", {"id": 2})
    assert (status, (await notes.call(asker, "GET", response.headers["Location"]))[0]) == (200, 200)


@pytest.mark.parametrize("header", ["Bearer nobody", "Basic YTpi", "", "Bearer a, Bearer b"])
async def test_what_is_for_anybody_does_not_look_at_a_credential_and_an_outcome_does(
    notes: Asking, header: str
) -> None:
    """What does not depend on who asks must not fail by it: not by an old key, nor while keys cannot be read."""
    bad = {"Authorization": header}
    status, _, response = await notes.call(None, "POST", "/notes/commands/post", {"id": 1}, bad)
    place = response.headers["Location"]
    assert (status, (await notes.call(None, "GET", place))[0]) == (200, 200)
    assert (await notes.call(None, "GET", place, None, bad))[0] == 401


async def test_whoever_is_not_known_is_shown_nothing_else(notes: Asking) -> None:
    _, _, response = await notes.call("ada", "POST", "/notes/commands/write", {"id": 1, "text": "a"})
    adas = response.headers["Location"]
    assert [(await notes.call(who, "GET", adas))[0] for who in ("ada", "bob", None, "nobody")] == [200, 404, 404, 401]
    assert (await notes.call(None, "GET", f"/commands/{uuid4()}"))[0] == 404
    for text in ("x", command_id_for("notes", "k"), system_command_id("a", "b"), "0" * 36):
        assert (await notes.call(None, "GET", f"/commands/{text}"))[0] == 401, text


async def test_an_id_that_others_can_make_of_a_key_leads_nobody_to_an_outcome(notes: Asking) -> None:
    keyed = {"Idempotency-Key": "order-1", "Prefer": "respond-async"}
    status, body, response = await notes.call(None, "POST", "/notes/commands/post", {"id": 1}, keyed)
    assert (status, "Location" in response.headers) == (202, False)
    assert (await notes.call(None, "GET", f"/commands/{body['command_id']}"))[0] == 401
    del keyed["Prefer"]
    assert (await notes.call(None, "POST", "/notes/commands/post", {"id": 1}, keyed))[0] == 200


async def test_where_everybody_is_asked_nothing_is_shown_without_a_credential(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        closed = NOTES.replace(handlers=[each for each in NOTES.handlers if each.allow is not anybody])
        gateway = await asking(stack, tmp_path / "closed.sqlite", authenticates=True, service=closed)
        assert (await gateway.call(None, "GET", f"/commands/{uuid4()}"))[0] == 401
