"""The rows about access: how often they are run, and what their clients send."""

from pathlib import Path

import jwt

from tests.bench.access import PRINCIPALS, Access
from tests.bench.catalogue import rows
from tests.bench.clients.http import script_of
from tests.bench.plan import interleaved, runs_of
from tests.support.issuer import AUDIENCE


def test_a_small_difference_is_looked_for_in_twice_the_runs_which_take_turns() -> None:
    chosen = [row for row in rows() if row.section == "access"]
    order = [row.key.removeprefix("access/") for row, _ in interleaved(chosen, 3)]
    assert order == ["open", "tokens", "tokens", "open"] * 3
    assert runs_of(chosen, 3) == len(order)


def test_each_request_shows_the_token_of_another_principal(tmp_path: Path) -> None:
    access = Access(tmp_path / "access")
    settings = access.gateway_settings()
    tokens = access.tokens.read_text().splitlines()
    read = {jwt.decode(token, options={"verify_signature": False}, audience=AUDIENCE)["sub"] for token in tokens}
    assert len(read) == len(tokens) == PRINCIPALS
    assert Path(settings["ACCESS_TOKEN_KEYS"]).exists()
    assert str(access.tokens) in script_of(["127.0.0.1:1"], str(access.tokens))
    assert "Authorization" not in script_of(["127.0.0.1:1"])
    access.gateway_settings()
    assert access.tokens.read_text().splitlines() == tokens, "others are made for a second gateway"


def test_clients_do_the_same_for_each_request_with_tokens_and_without(tmp_path: Path) -> None:
    """wrk asks no function for a request that is always the same, and is faster without one."""
    tokens = str(tmp_path / "tokens")
    without, with_tokens = (script_of(["127.0.0.1:1"], file).partition("function request()") for file in (None, tokens))
    assert without[1:] == with_tokens[1:]
    assert all(without)
