"""What a lease says of the lineages that are given up for its own."""

from coordinator.stores.lineages import (
    SUPERSEDED_CHARACTERS_MAX,
    SUPERSEDED_MAX,
    given_up_to,
    is_other,
    superseding,
)


def test_it_says_how_far_each_was_given_up() -> None:
    text = superseding(superseding(None, "first", up_to=5), "second", None, "third", up_to=9)
    # Those of before are given up as far, too: the lane goes above that.
    assert text == "first +9 second +9 third +9"
    named = ("first", "third", "other", "own", None)
    assert [given_up_to("own", text, each) for each in named] == [9, 9, None, None, None]
    assert [is_other("own", text, each) for each in ("first", "+5", "other", "own", None)] == [
        False,
        True,
        True,
        False,
        False,
    ]


def test_one_that_is_given_up_again_is_given_up_as_far_as_was_known_then() -> None:
    assert superseding("first +5 second +9", "first", up_to=20) == "second +20 first +20"
    assert superseding("first +5 second", "third", up_to=4) == "first +5 second third +4"


def test_what_an_earlier_release_has_written_is_believed() -> None:
    for text in ("first second", "+7 first second", "first +x second"):
        assert not is_other("own", text, "first")
        assert given_up_to("own", text, "first") is None
    assert superseding("first second", "third", up_to=3) == "first second third +3"


def test_the_last_ones_stay() -> None:
    text = None
    for number in range(SUPERSEDED_MAX + 3):
        text = superseding(text, f"lineage-{number}", up_to=number)
    assert given_up_to("own", text, "lineage-2") is None
    assert given_up_to("own", text, "lineage-3") == SUPERSEDED_MAX + 2
    for number in range(SUPERSEDED_MAX):
        text = superseding(text, f"{number:x>64}", up_to=10**15)
    assert len(str(text)) <= SUPERSEDED_CHARACTERS_MAX
    assert given_up_to("own", text, f"{SUPERSEDED_MAX - 1:x>64}") == 10**15
