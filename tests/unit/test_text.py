"""Text in one form: every spelling is one text, every character can be seen."""

import re
import shlex
import sys
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from coordinator.service.commands import NAME_CHARACTERS_MAX, parse
from coordinator.service.errors import InvalidCommand
from coordinator.service.rows import Row
from coordinator.service.text import VISIBLE, has_blank_end, in_quotes, normalized, unassigned_in, unseen_in
from coordinator.stores.row_checks import InvalidRow, RowChecks
from coordinator.testing import LaneInMemory
from shared.items.commands import CreateItem, UpdateItem
from shared.users import SERVICE
from shared.users.collisions import collisions, lines
from shared.users.commands import CreateUser, CreditUser, UpdateUser
from shared.users.emails import kept_email
from shared.users.model import User
from tests.support.ledger import LEDGER, Account, OpenAccount

BAD = (
    "\u200b\u200e\u200f\u202a\u202e\u2066\u2069\u00ad\u034f\u061c\u115f\u180e\u2060\u2800\u3164\ufeff\uffa0\u0085"
    "\U000e0061\ue000\uf8ff\ufdd0\ufffe\uffff\U0003ffff\U00050000\U000f0000\U0010ffff"
)
LONE = "\u200c\u200d\ufe0f"
NOW = datetime(2026, 2, 3, tzinfo=UTC)


class Labelled(Row, table="labelled", key="name", index=("label",)):
    """Its key is a text by which rows are put in order."""

    name: str
    label: str = ""


texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("e\u0301\u212b\u0958\u1100\u1161\uac00"))


@given(texts)
def test_a_normal_form_stays_as_it_is_and_is_one_for_all_spellings(text: str) -> None:
    form = normalized(text)
    assert normalized(form) == form
    assert {normalized(unicodedata.normalize(other, text)) for other in ("NFC", "NFD")} == {form}


@given(texts)
def test_a_name_that_is_taken_fits_its_column_in_its_normal_form(text: str) -> None:
    try:
        name = parse(CreateItem, {"name": text, "price": 1, "currency": "EUR", "stock": 1}).name
    except InvalidCommand:
        return
    assert 0 < len(normalized(name)) <= NAME_CHARACTERS_MAX


@pytest.mark.parametrize(("model", "more"), [(CreateItem, {}), (UpdateItem, {"id": 7})])
def test_a_name_that_grows_too_long_is_refused_by_name(
    model: type[CreateItem | UpdateItem], more: dict[str, int]
) -> None:
    arguments = {"name": "\u0958" * 101, "price": 1, "currency": "EUR", "stock": 1} | more
    with pytest.raises(InvalidCommand, match=r"at most 200 .* not 202") as refused:
        parse(model, arguments)
    assert (refused.value.code, refused.value.field) == ("invalid_arguments", "name")


@pytest.mark.parametrize("letter", BAD + LONE)
@pytest.mark.parametrize("encode", [dict, msgspec.json.encode])
def test_a_character_that_cannot_be_seen_is_refused_by_its_number(
    letter: str, encode: Callable[[dict[str, str]], Any]
) -> None:
    for field, value in (("name", f"ada{letter}"), ("email", f"ada{letter}@example.org"), ("email", f"a@b{letter}c")):
        with pytest.raises(InvalidCommand) as refused:
            parse(CreateUser, encode({"name": "Ada", "email": "a@b"} | {field: value}))
        assert (refused.value.code, refused.value.field) == ("invalid_arguments", field)
        assert f"U+{ord(letter):04X}" in str(refused.value)


@pytest.mark.parametrize(
    ("rest", "code"),
    [(b"1e400", "invalid_arguments"), (b'"\\ud800"', "malformed_json"), (b'"\xff"', "invalid_arguments")],
)
def test_a_name_that_is_not_taken_is_told_whatever_stands_behind_it(rest: bytes, code: str) -> None:
    with pytest.raises(InvalidCommand) as refused:
        parse(CreateUser, b'{"name":"a\xe2\x80\x8b","email":%s}' % rest)
    assert refused.value.code == code


def test_half_a_surrogate_pair_is_refused_where_no_text_belongs() -> None:
    for arguments in ({"id": "\ud83d", "amount": 1}, {"id": 1, "amount": 1, "\ud83d": 1}):
        with pytest.raises(InvalidCommand, match="surrogates"):
            parse(CreditUser, arguments)


@pytest.mark.parametrize("letter", ["\u0378", "\ue000", "\U000f0000"])
def test_an_address_has_no_character_of_which_nobody_knows_the_forms(letter: str) -> None:
    with pytest.raises(InvalidCommand, match="assigned"):
        parse(CreateUser, {"name": "Ada", "email": f"ada{letter}@example.org"})


@pytest.mark.parametrize(
    "name",
    [
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "👨\u200d👩\u200d👧",
        "❤\ufe0f\u200d🔥",
        "Ødegård",
        "한국어",
        "O'Neill",
        "O\u2019Neill",
    ],
)
def test_joiners_and_selectors_stand_where_they_are_needed(name: str) -> None:
    assert parse(CreateUser, {"name": name, "email": "a@b"}).name == name


def test_the_pattern_of_names_and_the_search_for_what_is_unseen_agree() -> None:
    visible = re.compile(VISIBLE)
    for number in range(sys.maxunicode + 1):
        letter = chr(number)
        is_unseen = unseen_in(letter) is not None or has_blank_end(letter)
        assert (visible.search(letter) is None) == is_unseen, hex(number)
        assert has_blank_end(letter) == (unicodedata.category(letter) == "Zs"), hex(number)


def test_what_has_no_meaning_and_never_gets_one_is_in_no_name_whatever_this_python_knows() -> None:
    """Unicode promises it of these, so no two processes differ: chapter 23.7, and private use."""
    for number in range(sys.maxunicode + 1):
        never = 0xFDD0 <= number <= 0xFDEF or number & 0xFFFE == 0xFFFE or number > 0x3FFFD
        if never or unicodedata.category(chr(number)) == "Co":
            assert unseen_in(chr(number)) is not None, hex(number)


@pytest.mark.parametrize(
    ("text", "found"), [("ada", None), ("Zoë👩", None), ("a\u0378", "U+0378"), ("\ue000", "U+E000")]
)
def test_what_is_not_assigned_is_found_at_the_door(text: str, found: str | None) -> None:
    assert unassigned_in(text) == found


@pytest.mark.parametrize("name", ["ada ", " ada", " ", "  ", "\u3000ada", "ada\u00a0"])
def test_no_space_is_at_an_end_of_a_name(name: str) -> None:
    with pytest.raises(InvalidCommand, match="begins or ends with a space") as refused:
        parse(CreateUser, {"name": name, "email": "a@b"})
    assert refused.value.field == "name"


@given(st.from_regex(VISIBLE) | texts)
def test_every_column_that_is_wide_enough_takes_a_name(text: str) -> None:
    try:
        name = parse(CreateItem, {"name": text, "price": 1, "currency": "EUR", "stock": 1}).name
    except InvalidCommand:
        return
    check = RowChecks().of(Labelled)
    assert check.new(Labelled(name=name)) == Labelled(name=name)


def test_what_unicode_has_controls_draw_no_name() -> None:
    """Of all format and control characters only those pass that are drawn: signs that span numbers and words."""
    visible = re.compile(VISIBLE)
    drawn = [
        n for n in range(sys.maxunicode + 1) if unicodedata.category(chr(n)) in ("Cc", "Cf") and visible.search(chr(n))
    ]
    assert all(0x600 <= n <= 0x8E2 or n >= 0x110BD for n in drawn), [hex(n) for n in drawn]


def test_spellings_of_one_address_are_one_user() -> None:
    lane = LaneInMemory(SERVICE)
    composed, apart = "Zoë@example.org", "Zoe\u0308@EXAMPLE.org"
    assert lane.apply(CreateUser(name="Zoe\u0308", email=apart)).applied
    assert lane.apply(CreateUser(name="Zoë", email=composed)).code == "email_taken"
    (user,) = lane.rows(User)
    assert (user.name, user.email) == ("Zoë", "zoë@example.org")
    assert lane.apply(UpdateUser(id=1, name="A\u0308")).applied
    assert lane.rows(User)[0].name == "Ä"


def test_no_row_is_found_by_a_text_that_ends_in_a_space() -> None:
    """MySQL takes it for the text without the space: the same commands would do other things on other databases."""
    lane = LaneInMemory(LEDGER)
    assert lane.apply(OpenAccount(owner="a")).applied
    tried = lane.apply(OpenAccount(owner="a "))
    assert tried.code == "invalid_row"
    assert "ends in a space" in str(tried.reason)


def test_a_row_from_before_that_ends_in_a_space_is_changed_as_ever() -> None:
    check = RowChecks().of(Account)
    before = Account(id=1, owner="a ", created_at=NOW)
    check.change(structs.replace(before, balance=5), before)
    check.key("owner", "a ")
    with pytest.raises(InvalidRow):
        check.new(before)


def user(number: int, email: str) -> User:
    return User(id=number, name="A", email=email, credit=0, created_at=NOW)


def test_a_user_from_before_is_credited_and_found_by_the_address_as_it_was_given() -> None:
    lane = LaneInMemory(SERVICE)
    lane.given(user(1, "Zoe\u0308\u200b@x"))
    assert lane.apply(CreditUser(id=1, amount=5)).applied
    assert lane.apply(UpdateUser(id=1, name="B")).applied
    assert (lane.rows(User)[0].credit, lane.rows(User)[0].email) == (5, "Zoe\u0308\u200b@x")
    lane.given(user(2, "Ada@X"))
    assert lane.apply(CreateUser(name="C", email="Ada@X")).code == "email_taken"
    assert lane.apply(UpdateUser(id=2, email="Ada@X")).applied
    assert lane.rows(User)[1].email == "ada@x"


def test_accounts_that_are_one_are_listed() -> None:
    users = [
        user(1, "ada@x"),
        user(2, "bob@x"),
        user(3, "ada\u200b@x"),
        user(4, "Zoe\u0308@x"),
        user(5, "zoë@x"),
        user(6, "Cy@x"),
    ]
    groups = collisions(users)
    assert [[each.id for each in same] for same in groups] == [[1, 3], [4, 5], [6]]
    text = "\n".join(lines(groups))
    assert "user 3  'ada\\u200b@x'  has U+200B ZERO WIDTH SPACE" in text
    assert "user 6  'Cy@x'  in another form" in text
    assert text.isascii()


@given(st.lists(texts.filter(lambda text: "@" not in text), max_size=5))
def test_whatever_was_kept_is_listed_or_in_its_one_form(parts: list[str]) -> None:
    users = [user(number, f"{part}@x") for number, part in enumerate(parts, 1)]
    listed = {each.id for same in collisions(users) for each in same}
    assert all(each.id in listed or kept_email(each.email) == each.email for each in users)


@given(st.text())
def test_a_text_in_quotes_is_one_word_of_a_shell(text: str) -> None:
    assert shlex.split(in_quotes(text)) == [text]


def test_a_text_stands_between_single_quotes() -> None:
    assert in_quotes("a'b") == "'a'\\''b'"
