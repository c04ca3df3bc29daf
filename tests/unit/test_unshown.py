"""What a sender in a shell is told of a failure whose text is for operators."""

from coordinator.service.unshown import shown_to_sender

COMMAND_ID = "0b0e7b6e-6d4e-4a57-9a5e-3f5d9f3c9b11"


def test_a_sender_is_told_what_says_why() -> None:
    said = shown_to_sender("handler_error", "…: operators find the reason under its id", COMMAND_ID)
    assert f"`coordinator command {COMMAND_ID}`" in said
    assert "quotes this id" in said
    assert "operators find" not in said


def test_a_refusal_is_told_as_it_is() -> None:
    assert shown_to_sender("taken", "seat 7 is taken", COMMAND_ID) == "seat 7 is taken"
