"""How deep JSON text is, without a parser and without a loop over its bytes."""

import json
from time import thread_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.service.nesting import is_too_deep

TEXTS = st.text(st.sampled_from('ab[]{}"\\\n,:é')) | st.text()
VALUES = st.recursive(
    st.none() | TEXTS | st.integers(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=30,
)


def depth_of(value: Any) -> int:
    if isinstance(value, list | dict):
        inner = value.values() if isinstance(value, dict) else value
        return 1 + max(map(depth_of, inner), default=0)
    return 0


@given(VALUES, st.booleans())
def test_it_is_as_deep_as_what_is_read_of_it(value: Any, is_ascii: bool) -> None:
    text, depth = json.dumps(value, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass"), depth_of(value)
    assert not is_too_deep(text, depth)
    assert depth == 0 or is_too_deep(text, depth - 1)


@pytest.mark.parametrize(
    ("text", "is_so"),
    [
        (b"[" * 6, True),
        (b"[{" * 3 + b"\\", True),
        (b'"' + b"[" * 9, False),
        (b'"\\"' + b"[" * 9, False),
        (b'"\\\\"' + b"[" * 9, True),
        (b'["' + b"\\" * 7 + b'"' + b"[" * 9 + b'"]', False),
        (b"[]" * 9, False),
    ],
)
def test_what_is_malformed_is_no_deeper_than_a_reader_goes(text: bytes, *, is_so: bool) -> None:
    assert is_too_deep(text, 5) is is_so


def test_it_costs_no_more_than_reading() -> None:
    """It came to a multiple: whoever sends such text has to pay more for it than who refuses it."""
    text = b'{"l":[' + b",".join([b'{"a":1.5}'] * 25_000) + b"]}"

    def cost_s(work: Any) -> float:
        began_s = thread_time()
        work(text)
        return thread_time() - began_s

    # In turns: what slows the machine down slows both.
    costs = [(cost_s(is_too_deep), cost_s(json.loads)) for _ in range(15)]
    looking_s, reading_s = map(min, zip(*costs, strict=True))
    assert looking_s < reading_s
