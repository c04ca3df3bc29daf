"""A row's key has one text, and different keys have different ones."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from coordinator.service.rows import Key
from coordinator.stores.audit_tables import KEY_CHARACTERS_MAX
from coordinator.stores.key_texts import key_text

_TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")) | st.sampled_from(
    ["/", "%2F", "a/b", "*", "a" * 300, "a" * 135 + "*", "é" * 100, ""]
)
_KEYS = st.tuples(_TEXTS, _TEXTS) | st.tuples(_TEXTS, st.integers())


def test_a_key_is_written_as_in_the_path_of_a_url() -> None:
    assert key_text(17) == "17"
    assert key_text("ada@example.org") == "ada%40example.org"
    assert key_text((7, "a/b")) == "7/a%2Fb"
    assert key_text(UUID(int=1)) == "00000000-0000-0000-0000-000000000001"


def test_a_long_key_is_cut_and_still_its_own() -> None:
    texts = [key_text("a" * length) for length in (199, 200, 201, 300)]
    assert [len(text) for text in texts] == [199, 200, 200, 200]
    assert len(set(texts)) == 4
    # What a caller may choose is no cut text of another key.
    assert key_text(texts[2]) != texts[2]


@given(_KEYS, _KEYS)
def test_keys_of_one_table_that_differ_have_texts_that_do(one: Key, other: Key) -> None:
    text = key_text(one)
    assert text.isascii()
    assert len(text) <= KEY_CHARACTERS_MAX
    is_same = one == other or (isinstance(one, tuple) and isinstance(other, tuple) and _parts(one) == _parts(other))
    assert (text == key_text(other)) == is_same


def _parts(key: tuple[object, ...]) -> list[str]:
    return [str(part) for part in key]
