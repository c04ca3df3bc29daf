"""The headers as values."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.http.headers import (
    KEY_CHARACTERS_MAX,
    Preferences,
    expected_version,
    idempotency_key,
    is_unchanged,
    preferences,
)
from coordinator.http.problems import RequestRefused
from coordinator.service.commands import INTEGER_MAX

visible = st.characters(min_codepoint=0x21, max_codepoint=0x7E)


@given(st.text(visible, min_size=1, max_size=KEY_CHARACTERS_MAX))
def test_every_key_of_visible_characters_can_be_quoted(key: str) -> None:
    quoted = key.replace("\\", "\\\\").replace('"', '\\"')
    assert idempotency_key([f' "{quoted}"\t']) == key


@pytest.mark.parametrize("key", ["abc", "8e03978e-40d5-43dd-bc93-6894a57f9324", "a/b+c==", "0", "x" * 255])
def test_a_bare_key_is_the_quoted_one(key: str) -> None:
    assert idempotency_key([key]) == idempotency_key([f'"{key}"']) == key


@pytest.mark.parametrize(
    "values",
    [
        *(
            [""],
            ['""'],
            ["a b"],
            ['"a b"'],
            ['"a'],
            ['a"b'],
            ["a,b"],
            ['"a";p=1'],
            ['"a\\b"'],
            ["x" * 256],
            ["é"],
        ),
        *(["a\x00"], ["a\n"], ["a", "a"], ["a", "b"], ['"' + "x" * 256 + '"'], ["\udcff"]),
    ],
)
def test_a_malformed_key_is_refused_by_name(values: list[str]) -> None:
    with pytest.raises(RequestRefused) as raised:
        idempotency_key(values)
    assert (raised.value.status, raised.value.field) == (400, "Idempotency-Key")


def test_without_a_key_there_is_none() -> None:
    assert idempotency_key([]) is None


@given(st.integers(1, INTEGER_MAX))
def test_an_entity_tag_is_a_version(version: int) -> None:
    assert expected_version([f'"{version}"']) == version
    assert expected_version([f'"{version}" , W/"x","{version}"']) == version
    assert is_unchanged([f'W/"{version}"'], version)
    assert not is_unchanged([f'"{version}"'], version + 1)


@given(st.lists(st.text(), max_size=3))
def test_any_text_is_a_version_or_refused(values: list[str]) -> None:
    is_unchanged(values, 3)
    preferences(values)
    for read in (expected_version, idempotency_key):
        with contextlib.suppress(RequestRefused):
            read(values)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], Preferences()),
        (["respond-async"], Preferences(True)),
        (["Respond-Async, wait=5"], Preferences(True, 5)),
        (["return=minimal; foo", 'WAIT="7"'], Preferences(False, 7)),
        (["wait=5, wait=6"], Preferences(False, 5)),
        (["wait=-1", "wait=x"], Preferences()),
        (["wait=" + "9" * 5000], Preferences()),
        (["wait=1.5;q=1,,;,=,respond-async;x=y"], Preferences(True)),
    ],
)
def test_preferences_are_read_and_what_is_malformed_ignored(values: list[str], expected: Preferences) -> None:
    assert preferences(values) == expected
