"""Bearer tokens: which count, which do not, and what becomes of them when the issuer's keys change or are away."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from coordinator.access import key_sets
from coordinator.access.authenticator import BEARER, NotAuthentic
from coordinator.access.key_sets import KEYS_MAX, KeySet, KeySetRefused, NoKeys, keys_of
from coordinator.access.settings import ALGORITHMS, AccessSettings
from coordinator.access.tokens import REMEMBERED_MAX, Tokens
from coordinator.service.errors import ConfigurationError
from coordinator.service.principal import Principal
from tests.support.authority import Authority
from tests.support.issuer import AUDIENCE, ISSUER, Issuer, SigningKey, key_set, serving
from tests.support.tls_stand_in import TlsStandIn

KEYS = {name: SigningKey(name, name) for name in ("ES256", "RS256", "EdDSA")}
KEY = KEYS["ES256"]
STRANGER = SigningKey("ES256")


def settings(**values: Any) -> AccessSettings:
    given = {"methods": "tokens", "token_issuer": ISSUER, "token_audience": AUDIENCE, "token_keys": "keys.json"}
    return AccessSettings(**(given | values))


@pytest.fixture
async def tokens(tmp_path: Path) -> AsyncIterator[Tokens]:
    path = tmp_path / "keys.json"
    path.write_bytes(key_set(*KEYS.values()))
    tokens = Tokens(settings(token_keys=str(path)))
    await tokens.start()
    yield tokens
    await tokens.close()


@pytest.mark.parametrize("name", KEYS)
async def test_a_token_of_the_issuer_names_a_principal(tokens: Tokens, name: str) -> None:
    token = KEYS[name].token(tenant="acme", scope="read write")
    for _ in range(2):
        found = await tokens.principal_of(token)
        assert found == Principal(subject="ada", tenant="acme", scopes=frozenset({"read", "write"}))


async def test_scopes_are_parted_by_spaces(tokens: Tokens) -> None:
    found = await tokens.principal_of(KEY.token(scope=" read  !#[]~ "))
    assert found == Principal(subject="ada", scopes=frozenset({"read", "!#[]~"}))


async def test_an_audience_among_several_and_scopes_as_a_list(tokens: Tokens) -> None:
    found = await tokens.principal_of(KEY.token(aud=["other", AUDIENCE], scope=["read"]))
    assert found == Principal(subject="ada", scopes=frozenset({"read"}))


def segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def claims() -> dict[str, Any]:
    return {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": int(time.time()) + 60}


def by_hand(header: object, body: object = None, signature: str = "") -> str:
    return f"{segment(header)}.{segment(claims() if body is None else body)}.{signature}"


def signed_with_the_public_key(kid: str) -> str:
    text = f"{segment({'alg': 'HS256', 'typ': 'JWT', 'kid': kid})}.{segment(claims())}"
    made = hmac.new(KEYS[kid].pem, text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(made).rstrip(b'=').decode()}"


def with_another_signature() -> str:
    head, body, _ = KEY.token().split(".")
    return f"{head}.{body}.{STRANGER.token().split('.')[2]}"


def with_other_claims() -> str:
    head, _, signature = KEY.token().split(".")
    return f"{head}.{segment(claims() | {'sub': 'eve'})}.{signature}"


def signed_text(body: str, head: str = '{"alg":"ES256","kid":"ES256"}') -> str:
    text = ".".join(base64.urlsafe_b64encode(part.encode()).rstrip(b"=").decode() for part in (head, body))
    return f"{text}.{KEY.signature(text)}"


DEEP = "[" * 5000

BAD: dict[str, Callable[[], str]] = {
    "no token": lambda: "hunter2",
    "two parts": lambda: "a.b",
    "nothing": lambda: "..",
    "no signature": lambda: by_hand({"alg": "none", "typ": "JWT"}),
    "none in capitals": lambda: by_hand({"alg": "NONE", "typ": "JWT"}),
    "none, by a key's id": lambda: by_hand({"alg": "none", "typ": "JWT", "kid": "ES256"}),
    "signed with the public key": lambda: signed_with_the_public_key("RS256"),
    "signed with another public key": lambda: signed_with_the_public_key("ES256"),
    "another's signature": with_another_signature,
    "other claims": with_other_claims,
    "a stranger's": STRANGER.token,
    "another key's id": lambda: KEY.token(headers={"kid": "RS256"}),
    "an unknown id": lambda: KEY.token(headers={"kid": "another"}),
    "an id with a path": lambda: KEY.token(headers={"kid": "../../etc/passwd"}),
    "no id": lambda: SigningKey(None).token(),
    "another audience": lambda: KEY.token(aud="other"),
    "another issuer": lambda: KEY.token(iss="https://evil.example.org/"),
    "expired by a second": lambda: KEY.token(exp=int(time.time()) - 1),
    "expired as a text": lambda: KEY.token(exp="tomorrow"),
    "not valid yet": lambda: KEY.token(nbf=int(time.time()) + 60),
    "made tomorrow": lambda: KEY.token(iat=int(time.time()) + 86_400),
    "no end": lambda: KEY.token(without=("exp",)),
    "no audience": lambda: KEY.token(without=("aud",)),
    "no issuer": lambda: KEY.token(without=("iss",)),
    "no subject": lambda: KEY.token(without=("sub",)),
    "an empty subject": lambda: KEY.token(sub=""),
    "a subject that is not seen": lambda: KEY.token(sub="a\u200bda"),
    "a subject of private use": lambda: KEY.token(sub="a\ue000"),
    "a subject that is no character": lambda: KEY.token(sub="a\ufffe"),
    "a subject that is not assigned": lambda: KEY.token(sub="a\u0378"),
    "a tenant that is not assigned": lambda: KEY.token(tenant="a\u0378"),
    "a subject in another form": lambda: KEY.token(sub="Ame\u0301lie"),
    "a long subject": lambda: KEY.token(sub="a" * 201),
    "a tenant that is a number": lambda: KEY.token(tenant=7),
    "an empty tenant": lambda: KEY.token(tenant=""),
    "scopes that are numbers": lambda: KEY.token(scope=[1]),
    "scopes with another space between": lambda: KEY.token(scope="read\u00a0staff"),
    "scopes with a tab between": lambda: KEY.token(scope="read\tstaff"),
    "scopes with a line's end between": lambda: KEY.token(scope="read\nstaff"),
    "a scope with a quote": lambda: KEY.token(scope='read "staff"'),
    "a scope with a backslash": lambda: KEY.token(scope="read st\\aff"),
    "too many scopes": lambda: KEY.token(scope=" ".join(map(str, range(60)))),
    "another kind of token": lambda: KEY.token(headers={"typ": "secevent+jwt"}),
    "a kind that is a number": lambda: KEY.token(headers={"typ": 7}),
    "critical headers": lambda: KEY.token(headers={"crit": ["exp"]}),
    "an end that is a text": lambda: KEY.token(exp=str(int(time.time()) + 60)),
    "an end that is true": lambda: KEY.token(exp=True),
    "an end that is no number": lambda: KEY.token(exp=float("nan")),
    "an end that is without end": lambda: KEY.token(exp=float("inf")),
    "an end beyond the year 9999": lambda: KEY.token(exp=10**12),
    "an end beyond all numbers": lambda: KEY.token(exp=10**30),
    "a beginning that is a text": lambda: KEY.token(nbf="1700000000"),
    "a beginning that is true": lambda: KEY.token(nbf=True),
    "a beginning that is null": lambda: KEY.token(nbf=None),
    "made at a text": lambda: KEY.token(iat="1700000000"),
    "made at false": lambda: KEY.token(iat=False),
    "a note that is no number": lambda: KEY.token(note=float("nan")),
    "two ends": lambda: signed_text(f'{{{json.dumps(claims())[1:-1]},"exp":{int(time.time()) + 600}}}'),
    "two subjects": lambda: signed_text(f'{{"sub":"eve",{json.dumps(claims())[1:]}'),
    "two ids of keys": lambda: signed_text(json.dumps(claims()), '{"alg":"ES256","kid":"RS256","kid":"ES256"}'),
    "a deep head": lambda: f"{base64.urlsafe_b64encode(DEEP.encode()).decode()}.{segment(claims())}.AAAA",
    "a deep body": lambda: f"{segment({'alg': 'ES256', 'kid': 'ES256'})}.{DEEP}.AAAA",
    "a list": lambda: by_hand(["ES256"]),
    "claims that are a list": lambda: by_hand({"alg": "ES256", "kid": "ES256"}, [1], "AAAA"),
    "a key of its own": lambda: STRANGER.token(headers={"jwk": STRANGER.jwk}),
    "keys at an address of its own": lambda: STRANGER.token(headers={"jku": "http://127.0.0.1:9/keys"}),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_token_that_does_not_count(tokens: Tokens, name: str) -> None:
    token = BAD[name]()
    spent_s = []
    for _ in range(3):
        began_s = time.process_time()
        with capture_logs() as logs, pytest.raises(NotAuthentic) as refused:
            await tokens.principal_of(token)
        spent_s.append(time.process_time() - began_s)
        assert token not in f"{refused.value}{logs}"
    # A collection of garbage may come in between.
    assert min(spent_s) < 0.05


async def test_eight_kilobytes_of_claims_count_if_the_issuer_says_so(tokens: Tokens) -> None:
    assert (await tokens.principal_of(KEY.token(note="x" * 5000))).subject == "ada"


async def test_the_clocks_may_be_apart_as_far_as_the_setting_says(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(key_set(KEY))
    tokens = Tokens(settings(token_keys=str(tmp_path / "keys.json"), token_leeway_s=30))
    await tokens.start()
    assert (await tokens.principal_of(KEY.token(exp=int(time.time()) - 5))).subject == "ada"
    with pytest.raises(NotAuthentic, match="expired"):
        await tokens.principal_of(KEY.token(exp=int(time.time()) - 31))
    await tokens.close()


async def test_a_token_that_was_good_ends_at_its_time(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    token = KEY.token(exp=int(time.time()) + 30)
    principal = await tokens.principal_of(token)
    assert tokens.known(BEARER + token) == principal
    later = time.time() + 31
    monkeypatch.setattr("coordinator.access.tokens.time.time", lambda: later)
    with pytest.raises(NotAuthentic):
        # PyJWT asks another clock, which nobody has moved: what is remembered must not count.
        await tokens.principal_of(token[:-4] + "AAAA")
    assert tokens.known(BEARER + token) is None


async def test_a_token_is_known_by_all_of_it(tokens: Tokens) -> None:
    """It is found by its end."""
    token = KEYS["RS256"].token()
    await tokens.principal_of(token)
    end = token[-100:]
    for other in ("x" + token, "x" + token[1:], end, KEYS["RS256"].token(sub="eve")[:-100] + end):
        assert tokens.known(BEARER + other) is None
        with pytest.raises(NotAuthentic):
            await tokens.principal_of(other)
    for authorization in (token, f"bearer {token}", f"Bearer  {token}", f"Bearer {token} ", ""):
        assert tokens.known(authorization) is None
    assert tokens.known(BEARER + token) is not None


async def test_what_is_remembered_has_an_end(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    assert REMEMBERED_MAX <= 10_000
    monkeypatch.setattr("coordinator.access.tokens.REMEMBERED_MAX", 3)
    for number in range(5):
        await tokens.principal_of(KEY.token(sub=f"ada{number}"))
    assert len(tokens._remembered) == 3


async def test_what_is_remembered_of_large_tokens_has_an_end_too(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [KEY.token(sub=f"ada{number}") for number in range(4)]
    monkeypatch.setattr(
        "coordinator.access.tokens.REMEMBERED_CHARACTERS_MAX", sum(len(BEARER + token) for token in given[2:])
    )
    for token in (*given, *given):
        await tokens.principal_of(token)
        assert tokens.known(BEARER + token) is not None
    assert [token for token in given if tokens.known(BEARER + token)] == given[2:]
    assert tokens._remembered_characters == sum(len(remembered) for remembered, _, _ in tokens._remembered.values())


async def test_a_key_that_is_taken_out_ends_its_tokens(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(key_set(KEY, KEYS["RS256"]))
    tokens = Tokens(settings(token_keys=str(path)))
    await tokens.start()
    token = KEY.token()
    await tokens.principal_of(token)
    path.write_bytes(key_set(KEYS["RS256"]))
    await tokens._keys._fetch()
    with pytest.raises(NotAuthentic, match="no key"):
        await tokens.principal_of(token)
    await tokens.close()


async def test_keys_in_a_pipe_without_a_writer_are_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    os.mkfifo(path)
    with pytest.raises(ConfigurationError, match=r"ACCESS_TOKEN_KEYS: .* it is no plain file"):
        await Tokens(settings(token_keys=str(path))).start()


async def test_a_new_key_is_fetched_when_its_first_token_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_sets, "UNKNOWN_EVERY_S", 0.0)
    new = SigningKey("new")
    async with serving(Issuer(KEY)) as issuer:
        tokens = Tokens(settings(token_keys=issuer.url))
        await tokens.start()
        await tokens.principal_of(KEY.token())
        issuer.body = key_set(KEY, new)
        assert (await tokens.principal_of(new.token(sub="bob"))).subject == "bob"
        await tokens.close()


async def test_all_tokens_of_a_new_key_wait_for_it() -> None:
    new = SigningKey("new")
    async with serving(Issuer(KEY)) as issuer:
        tokens = Tokens(settings(token_keys=issuer.url))
        await tokens.start()
        tokens._keys._tried_at = None
        issuer.body = key_set(KEY, new)
        named = ["ada", "bob", "eve"]
        found = await asyncio.gather(*(tokens.principal_of(new.token(sub=each)) for each in named))
        assert [each.subject for each in found] == named
        assert issuer.asked == 2
        await tokens.close()


async def test_made_up_ids_do_not_have_the_issuer_asked_again_and_again() -> None:
    async with serving(Issuer(KEY)) as issuer:
        tokens = Tokens(settings(token_keys=issuer.url))
        await tokens.start()
        for number in range(50):
            with pytest.raises(NotAuthentic):
                await tokens.principal_of(STRANGER.token(headers={"kid": str(number)}))
        assert issuer.asked == 1
        await tokens.close()


@pytest.mark.parametrize("status", [302, 404, 500])
async def test_an_issuer_that_answers_nothing_of_use(status: int) -> None:
    async with serving(Issuer(KEY)) as issuer:
        issuer.status = status
        tokens = Tokens(settings(token_keys=issuer.url))
        with capture_logs() as logs:
            await tokens.start()
        assert [line["event"] for line in logs] == ["token_keys_not_fetched"]
        assert await tokens.problem() == "the keys of tokens cannot be fetched"
        with pytest.raises(NoKeys):
            await tokens.principal_of(KEY.token())
        issuer.status = 200
        await tokens._keys._fetch()
        assert await tokens.problem() is None
        assert (await tokens.principal_of(KEY.token())).subject == "ada"
        # What is known counts on, while it is not too old.
        issuer.status = status
        await tokens._keys._fetch()
        assert await tokens.problem() is not None
        assert (await tokens.principal_of(KEY.token(sub="bob"))).subject == "bob"
        await tokens.close()


async def test_whatever_an_issuer_answers_it_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a key that is withdrawn would count on."""
    monkeypatch.setattr(key_sets, "RETRY_S", 0.01)
    async with serving(Issuer(KEY)) as issuer:
        tokens = Tokens(settings(token_keys=issuer.url))
        tokens._keys._refresh_s = 0.01
        await tokens.start()
        await tokens.principal_of(KEY.token())
        for body in (b'{"error": "caf\xe9"}', b'{"keys": [{"kid": "\xe9"}]}', b"\xff\xfe{}"):
            issuer.body = body
            await asked_again(issuer)
            assert await tokens.problem() is not None
        issuer.body = key_set(STRANGER)
        await asked_again(issuer)
        assert await tokens.problem() is None
        with pytest.raises(NotAuthentic):
            await tokens.principal_of(KEY.token())
        await tokens.close()


EMPTIED = {
    "no key": [],
    "none for signatures": [KEYS["RS256"].jwk | {"use": "enc"}],
    "a secret key": [{"kty": "oct", "k": "AAAA", "kid": "secret", "alg": "HS256"}],
    "two with one id": [KEY.jwk, STRANGER.jwk],
}


@pytest.mark.parametrize("emptied", EMPTIED)
async def test_a_set_without_a_key_of_use_withdraws_all_that_it_had(emptied: str) -> None:
    async with serving(Issuer(KEY)) as issuer:
        tokens = Tokens(settings(token_keys=issuer.url))
        await tokens.start()
        token = KEY.token()
        assert (await tokens.principal_of(token)).subject == "ada"
        issuer.body = json.dumps({"keys": EMPTIED[emptied]}).encode()
        with capture_logs() as logs:
            await tokens._keys._fetch()
        assert "it has no public key for" in next(
            each["reason"] for each in logs if each["event"] == "token_keys_not_fetched"
        )
        assert await tokens.problem() is not None
        assert tokens.known(BEARER + token) is None
        with pytest.raises(NoKeys):
            await tokens.principal_of(token)
        issuer.body = key_set(KEY)
        await tokens._keys._fetch()
        assert await tokens.problem() is None
        assert (await tokens.principal_of(token)).subject == "ada"
        await tokens.close()


async def test_keys_with_one_id_do_not_keep_a_withdrawn_one_in_use() -> None:
    """Nobody knows which of them is meant, and the others of the set count."""
    other, withdrawn = SigningKey("other"), SigningKey("withdrawn")
    async with serving(Issuer(KEY, withdrawn)) as issuer:
        tokens = Tokens(settings(token_keys=issuer.url))
        await tokens.start()
        issuer.body = key_set(KEY, STRANGER, other, other)
        with capture_logs() as logs:
            await tokens._keys._fetch()
        assert [each["reason"] for each in logs] == ["two keys have the id 'ES256'"]
        assert await tokens.problem() is None
        assert (await tokens.principal_of(other.token())).subject == "ada"
        for each in (KEY, STRANGER, withdrawn):
            with pytest.raises(NotAuthentic):
                await tokens.principal_of(each.token())
        await tokens.close()


async def test_a_defect_of_ours_does_not_end_the_fetching(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_sets, "RETRY_S", 0.01)

    def planted(*_: object) -> Any:
        raise IndexError("planted")

    async with serving(Issuer(KEY)) as issuer:
        tokens = Tokens(settings(token_keys=issuer.url))
        tokens._keys._refresh_s = 0.01
        await tokens.start()
        with monkeypatch.context() as patched, capture_logs() as logs:
            patched.setattr(key_sets, "keys_of", planted)
            await asked_again(issuer)
            assert await tokens.problem() is not None
            assert (await tokens.principal_of(KEY.token())).subject == "ada"
        assert [(line["event"], line["reason"]) for line in logs] == [("token_keys_not_fetched", "IndexError: planted")]
        await asked_again(issuer)
        assert await tokens.problem() is None
        await tokens.close()


async def asked_again(issuer: Issuer) -> None:
    """Wait until an answer that it gives from now on has been taken in."""
    until = issuer.asked + 3
    async with asyncio.timeout(5):
        while issuer.asked < until:  # noqa: ASYNC110  # of another task's objects
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("wrong", ["of an unknown authority", "another host's", "expired"])
async def test_an_issuer_with_a_wrong_certificate_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: str
) -> None:
    authority = Authority(tmp_path)
    name = "DNS:elsewhere.example.org" if wrong == "another host's" else "IP:127.0.0.1"
    shown = authority.issue("issuer", name, is_expired=wrong == "expired")
    if wrong != "of an unknown authority":
        # As with SSL_CERT_FILE, which the client reads once, when it is imported.
        trusting = ssl.create_default_context(cafile=authority.certificate)
        monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trusting)
    with closing(TlsStandIn(*shown)) as server, capture_logs() as logs:
        keys = KeySet(f"https://127.0.0.1:{server.port}/keys", frozenset(ALGORITHMS), refresh_s=60, age_s_max=60)
        await keys.start()
        with pytest.raises(NoKeys):
            await keys.find("ES256")
        await keys.close()
    said = {"of an unknown authority": "unable to get local issuer", "another host's": "not valid for '127.0.0.1'"}
    (line,) = [each for each in logs if each["event"] == "token_keys_not_fetched"]
    assert said.get(wrong, "certificate has expired") in line["reason"]


async def test_an_issuer_that_is_slow_holds_nobody_up_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_sets, "FETCH_TIMEOUT_S", 0.05)
    async with serving(Issuer(KEY)) as issuer:
        issuer.may_answer.clear()
        tokens = Tokens(settings(token_keys=issuer.url))
        await tokens.start()
        with pytest.raises(NoKeys):
            await tokens.principal_of(KEY.token())
        await tokens.close()


async def test_keys_that_have_become_too_old_count_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(Issuer(KEY)) as issuer:
        tokens = Tokens(settings(token_keys=issuer.url, token_keys_age_s_max=60))
        await tokens.start()
        later = time.monotonic() + 61
        issuer.status = 500
        monkeypatch.setattr("coordinator.access.key_sets.time.monotonic", lambda: later)
        with pytest.raises(NoKeys):
            await tokens.principal_of(KEY.token())
        await tokens.close()


async def test_nor_does_a_token_that_counted_before(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(Issuer(KEY)) as issuer:
        tokens = Tokens(settings(token_keys=issuer.url, token_keys_age_s_max=60))
        await tokens.start()
        token = KEY.token()
        assert (await tokens.principal_of(token)).subject == "ada"
        later = time.monotonic() + 61
        issuer.status = 500
        monkeypatch.setattr("coordinator.access.key_sets.time.monotonic", lambda: later)
        with pytest.raises(NoKeys):
            await tokens.principal_of(token)
        assert not tokens.knows_anybody
        issuer.status = 200
        await tokens._keys._fetch()
        assert (await tokens.principal_of(token)).subject == "ada"
        await tokens.close()


async def test_a_token_that_ends_beyond_all_time_is_no_fault_of_the_gateway(tokens: Tokens) -> None:
    with pytest.raises(NotAuthentic, match="it cannot be read"):
        await tokens.principal_of(KEY.token(exp=10**400))


async def test_what_is_signed_by_hand_counts_where_it_is_as_it_must_be(tokens: Tokens) -> None:
    assert (await tokens.principal_of(signed_text(json.dumps(claims() | {"exp": time.time() + 60.5})))).subject == "ada"


async def test_a_key_with_a_name_twice_is_passed_over_with_a_line(tmp_path: Path) -> None:
    good, doubled = json.dumps(KEY.jwk), json.dumps(KEYS["RS256"].jwk)
    (tmp_path / "keys.json").write_text(f'{{"keys": [{good}, {doubled[:-1]}, "use": "sig"}}]}}')
    tokens = Tokens(settings(token_keys=str(tmp_path / "keys.json")))
    with capture_logs() as logs:
        await tokens.start()
    told = [line["reason"] for line in logs if line["event"] == "token_key_passed_over"]
    assert told == ["the key 'RS256' has 'use' twice"]
    assert (await tokens.principal_of(KEY.token())).subject == "ada"
    with pytest.raises(NotAuthentic):
        await tokens.principal_of(KEYS["RS256"].token())
    await tokens.close()


async def test_a_file_that_cannot_be_used_ends_the_start(tmp_path: Path) -> None:
    for text in (None, b"{}", b"no json", b'{"keys": []}'):
        path = tmp_path / "keys.json"
        if text is not None:
            path.write_bytes(text)
        tokens = Tokens(settings(token_keys=str(path)))
        with pytest.raises(ConfigurationError, match=r"ACCESS_TOKEN_KEYS: the keys at .*keys.json cannot be used"):
            await tokens.start()


SECRET = {"kty": "oct", "k": "AAAA", "kid": "secret", "alg": "HS256"}
SMALL = {"kty": "RSA", "kid": "small", "n": base64.urlsafe_b64encode(b"\xff" * 128).rstrip(b"=").decode(), "e": "AQAB"}


def test_keys_of_other_kinds_are_passed_over() -> None:
    given = json.loads(key_set(KEY))["keys"]
    given += [SECRET, SMALL, {"kty": "EC", "crv": "P-000"}, {}, 7, KEYS["RS256"].jwk | {"use": "enc"}, {"kid": 7}]
    of_other_use: list[dict[str, Any]] = [{"key_ops": ["encrypt"]}, {"key_ops": 7}, {"alg": "none"}, {"alg": ["RS256"]}]
    given += [KEYS["RS256"].jwk | {"kid": f"other {number}"} | each for number, each in enumerate(of_other_use)]
    found = keys_of(json.dumps({"keys": given}).encode(), frozenset(ALGORITHMS))
    assert list(found) == ["ES256"]
    assert list(keys_of(key_set(*KEYS.values()), frozenset({"RS256"}))) == ["RS256"]
    verifying = {"keys": [KEY.jwk | {"key_ops": ["verify"]}]}
    assert list(keys_of(json.dumps(verifying).encode(), frozenset(ALGORITHMS))) == ["ES256"]


@pytest.mark.parametrize(
    ("algorithms", "expected"),
    [
        ({"RS256"}, "RS256"),
        ({"PS256"}, "PS256"),
        ({"RS512", "ES256"}, "RS512"),
        ({"RS256", "RS512", "PS256"}, "RS256"),
        ({"RS384", "PS384"}, None),
        ({"ES256"}, None),
    ],
)
def test_an_rsa_key_without_an_algorithm_is_for_one_of_those_that_are_taken(
    algorithms: set[str], expected: str | None
) -> None:
    bare = {name: each for name, each in KEYS["RS256"].jwk.items() if name != "alg"}
    text = json.dumps({"keys": [bare, KEY.jwk | {"alg": "ES256"}]}).encode()
    told: list[str] = []
    found = keys_of(text, frozenset(algorithms | {"ES256"}), told.append)
    assert [found[name].algorithm_name for name in found if name == bare["kid"]] == ([expected] if expected else [])
    assert ["names no `alg`" in each for each in told] == ([True] if algorithms == {"RS384", "PS384"} else [])


async def test_a_token_is_taken_by_the_algorithm_that_its_key_has_without_naming_it(tmp_path: Path) -> None:
    path, key = tmp_path / "keys.json", SigningKey("p", "PS256")
    bare = {name: each for name, each in key.jwk.items() if name != "alg"}
    path.write_bytes(json.dumps({"keys": [bare]}).encode())
    tokens = Tokens(settings(token_keys=str(path), token_algorithms="PS256"))
    await tokens.start()
    assert (await tokens.principal_of(key.token())).subject == "ada"
    key.algorithm = "RS256"
    with pytest.raises(NotAuthentic):
        await tokens.principal_of(key.token())
    await tokens.close()


@pytest.mark.parametrize("name", KEYS)
def test_a_private_key_is_none_that_checks_tokens(name: str) -> None:
    shown = KEYS[name].private_jwk
    assert not keys_of(json.dumps({"keys": [shown]}).encode(), frozenset(ALGORITHMS))
    others = [each.jwk for each in KEYS.values() if each is not KEYS[name]]
    assert name not in keys_of(json.dumps({"keys": [shown, *others]}).encode(), frozenset(ALGORITHMS))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "no JSON Web Key Set"),
        (b"[]", "no JSON Web Key Set"),
        (b'{"error": "caf\xe9"}', "no JSON Web Key Set"),
        (b'{"keys": {}}', "must be a list"),
        (b'{"keys": [], ' + key_set(KEY)[1:], "the name 'keys' twice"),
        (json.dumps({"keys": [KEY.jwk] * (KEYS_MAX + 1)}).encode(), "at most 100"),
        (json.dumps({"keys": [KEY.jwk | {"kid": str(each)} for each in range(10_000)]}).encode(), "larger than"),
        (b'{"keys":' + b"[" * 100_000, "no JSON Web Key Set"),
    ],
)
def test_a_set_that_cannot_be_used(text: bytes, reason: str) -> None:
    with pytest.raises(KeySetRefused, match=reason):
        keys_of(text, frozenset(ALGORITHMS))


async def test_what_the_issuer_knows_us_by_is_in_no_log() -> None:
    """An address may have a password, or a key among its options."""
    keys = KeySet("http://svc:pl4nted@127.0.0.1:9/keys?key=pl4nted", frozenset(ALGORITHMS), refresh_s=60, age_s_max=60)
    with capture_logs() as logs:
        await keys.start()
        await keys.close()
        keys._pass_over("it has a name twice")
    told = [each["source"] for each in logs if each["event"] in ("token_keys_not_fetched", "token_key_passed_over")]
    assert told == ["http://…@127.0.0.1:9/keys?…"] * 2
    assert "pl4nted" not in str(logs)
