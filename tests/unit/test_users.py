"""E-mail addresses of users: what is kept of them fits, and one address is one user."""

import unicodedata
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import Mock

import idna
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import String

from coordinator.protocol.wire import CommandMessage
from coordinator.service.commands import parse
from coordinator.service.errors import InvalidCommand, Rejected
from coordinator.service.ids import new_command_id
from coordinator.service.principal import Principal
from coordinator.service.text import unseen_in
from shared.users.commands import CreateUser, UpdateUser
from shared.users.emails import EMAIL_CHARACTERS_MAX, kept_email
from shared.users.model import User, users
from tests.unit.test_operate_letters import world_of

GROWING = "İ" * 240 + "@" + "x" * 13


def is_seen(letter: str) -> bool:
    return unseen_in(letter) is None


# Letters that grow, compose or change with their place come often.
letters = st.characters(exclude_categories=["C", "Z"], exclude_characters="@").filter(is_seen) | st.sampled_from(
    "İ\u03a3\u03c2\u03c3\u0301\u212b\u0958éẞß"
)
labels = st.text(letters, min_size=1, max_size=40) | st.sampled_from(
    ["xn--bcher-kva", "xn--a", "xn--", "\uff58", "XN--N3H"]
)
hosts = st.lists(labels, min_size=1, max_size=4).flatmap(
    lambda given: st.sampled_from([each.join(given) for each in (".", "\u3002", "..")])
)
addresses = st.tuples(st.text(letters, min_size=1, max_size=130), hosts).map("@".join)


@given(addresses)
def test_what_is_kept_of_an_address_that_is_taken_fits_its_column(email: str) -> None:
    arguments = msgspec.json.encode({"name": "A", "email": email})
    if len(kept_email(email)) > EMAIL_CHARACTERS_MAX or len(email) > EMAIL_CHARACTERS_MAX:
        with pytest.raises(InvalidCommand) as raised:
            parse(CreateUser, arguments)
        assert (raised.value.code, raised.value.field) == ("invalid_arguments", "email")
    else:
        column = users.c.email.type
        assert isinstance(column, String)
        assert column.length is not None
        assert len(kept_email(parse(CreateUser, arguments).email)) <= column.length


@given(addresses)
def test_every_spelling_of_an_address_is_kept_as_one(email: str) -> None:
    kept = kept_email(email)
    assert kept_email(kept) == kept
    assert {kept_email(unicodedata.normalize(form, email)) for form in ("NFC", "NFD")} == {kept}
    assert kept_email(email.lower()) == kept


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ada@Example.ORG", "ada@example.org"),
        ("Ødegård@x", "ødega\u030ard@X"),
        ("\u03a0\u03a3@x", "\u03c0\u03c2@x"),
        ("\u03c0\u03c3@x", "\u03c0\u03c2@x"),
        ("\u212bsa@x", "\u00e5sa@x"),
        ("ada@bücher.example", "ada@xn--bcher-kva.example"),
        ("ada@BÜCHER.example", "ada@XN--Bcher-KVA.example"),
        ("ada@x.example", "ada@x\u3002example"),
        ("ada@x.example", "ada@\uff58.example"),
        ("ada@x.example", "ada@x.example."),
    ],
)
def test_spellings_that_people_use_are_one_address(one: str, other: str) -> None:
    assert kept_email(one) == kept_email(other)


@pytest.mark.parametrize(
    ("one", "other"), [("straße@x", "strasse@x"), ("\u0131@x", "i@x"), ("a.b@x", "ab@x"), ("a@faß.de", "a@fass.de")]
)
def test_other_addresses_stay_others(one: str, other: str) -> None:
    assert kept_email(one) != kept_email(other)


@pytest.mark.parametrize("model", [CreateUser, UpdateUser])
def test_an_address_that_grows_too_long_is_refused_by_name(model: type[CreateUser | UpdateUser]) -> None:
    arguments = {"name": "A", "email": GROWING} | ({"id": 7} if model is UpdateUser else {})
    for given_ in (msgspec.json.encode(arguments), arguments):
        with pytest.raises(InvalidCommand) as raised:
            parse(model, given_)
        assert (raised.value.code, raised.value.field) == ("invalid_arguments", "email")
        assert "254" in str(raised.value)


def test_a_change_that_leaves_the_address_alone_is_taken() -> None:
    assert parse(UpdateUser, b'{"id": 7, "name": "A"}').name == "A"


def encoded(labels_: int) -> str:
    """An address whose host has so many labels that stand for other letters."""
    return "ada@" + ".".join(["xn--mgbaam7a8h"] * labels_)


@pytest.mark.parametrize("email", [encoded(10), encoded(10).upper(), "b\u00fccher" + encoded(10)[3:]])
def test_a_host_that_takes_long_to_read_is_refused_before_it_is_read(
    email: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.users.emails.idna.ulabel", None)
    for text in (email, email.replace("xn--", "\uff58n--")):
        with pytest.raises(InvalidCommand) as raised:
            parse(CreateUser, msgspec.json.encode({"name": "A", "email": text}))
        assert (raised.value.code, raised.value.field) == ("invalid_arguments", "email")
        assert "128 characters in labels that begin with xn--" in str(raised.value)
    assert kept_email(kept_email(email)) == kept_email(email)


def test_a_command_s_address_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strangers sign up, and to read such a label takes a lane longer than to read a whole address of others."""
    ulabel = Mock(wraps=idna.ulabel)
    monkeypatch.setattr("shared.users.emails.idna.ulabel", ulabel)
    with world_of("users", tmp_path, monkeypatch) as world:
        message = CommandMessage(
            command_id=new_command_id(),
            type=CreateUser.type,
            arguments=CreateUser(name="A", email=encoded(5)).arguments(),
            actor=Principal(subject="ada"),
        )
        assert [outcome.status for outcome in world.deliver(message)] == ["applied"]
    assert ulabel.call_count == 5


def test_who_takes_too_much_of_a_credit_is_not_told_how_much_there_is() -> None:
    """He may be a cashier, to whom users are not shown."""
    user = User(id=2, name="Bob", email="bob@x.org", credit=4321, created_at=datetime(2026, 1, 1, tzinfo=UTC))
    with pytest.raises(Rejected) as raised:
        user.credited(-999_999)
    assert (raised.value.code, "4321" in str(raised.value)) == ("insufficient_credit", False)
