"""Which command blocks a lane is told to whoever may look, and the words of its error to operators alone."""

from hypothesis import given
from hypothesis import strategies as st

from coordinator.lane.blocking import blocked_text, without_words

TYPES = st.from_regex(r"[a-z][a-z0-9_]{0,20}\.[a-z][a-z0-9_]{0,20}", fullmatch=True)


@given(command_id=st.uuids().map(str), command_type=TYPES, words=st.text(), before=st.sampled_from(["", "h1:9000: "]))
def test_what_is_written_is_read_without_its_words(command_id: str, command_type: str, words: str, before: str) -> None:
    """Also where the words quote such a text, or have lines, and where the reason is quoted."""
    which = f"{before}{blocked_text(command_id, command_type, '')}".removesuffix(": ")
    assert which.endswith(f"blocked by command {command_id} ({command_type})")
    for each in (words, f"\n{words}", f"{words}): {words}", blocked_text(command_id, command_type, words)):
        written = before + blocked_text(command_id, command_type, each)
        assert written.endswith(each)
        assert without_words(written) == which
    assert without_words(which) == which


@given(st.none() | st.text().filter(lambda each: "blocked" not in each))
def test_another_reason_is_told_whole(reason: str | None) -> None:
    assert without_words(reason) == reason
