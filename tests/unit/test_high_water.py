"""What a process of a lane knows of how far it had come, of its own and from the marks of others."""

import pytest

from coordinator.lane.high_water import CommitsLost, HighWater, Mark
from coordinator.stores.port import Lease

ALONE = Mark(4, 1, {"users": 7}, lineage="first")
"""What a process had acknowledged when it was cut off, and no other knows."""


def knowing(*marks: Mark) -> HighWater:
    known = HighWater("users")
    for mark in marks:
        known.learn(mark)
    return known


def test_who_accepts_a_loss_gives_up_no_more_than_he_knew() -> None:
    accepted = Mark(3, 2, {"users": 5}, lineage="second", supersedes="first")
    for marks in ((ALONE, accepted), (accepted, ALONE)):
        known = knowing(*marks)
        assert known.mark() == Mark(4, 2, {"users": 7}, lineage="second", supersedes="first")
        with pytest.raises(CommitsLost, match="ends at sequence 3, and 4 was acknowledged"):
            known.check(Lease(2, 3, lineage="second", supersedes="first"))


def test_a_mark_of_another_history_counts_alone() -> None:
    other = Mark(3, 2, {"users": 5}, lineage="other")
    assert knowing(ALONE, other).mark() == other


def test_a_mark_of_more_than_was_given_up_for_its_own_is_of_another_history() -> None:
    in_a_copy = Mark(9, 4, {"users": 20}, lineage="second", supersedes="first +3")
    assert knowing(in_a_copy, ALONE).mark() == Mark(4, 4, {"users": 7}, lineage="first")
    of_before = Mark(3, 1, {"users": 5}, lineage="first")
    assert knowing(in_a_copy, of_before).mark() == in_a_copy


def test_the_mark_of_a_standby_is_of_one_history_also_when_it_has_seen_another() -> None:
    lease = Lease(2, 9, lineage="second", supersedes="first +4")
    standby = knowing(ALONE)
    standby.check(lease)
    standby.seen(lease)
    assert standby.mark() == Mark(4, 2, {"users": 7}, lineage="first")
    of_the_lane = Mark(9, 2, {"users": 12, "letters": 3}, lineage="second", supersedes="first +4")
    # Whoever had the lane has given out ids of which the standby knows nothing.
    assert knowing(of_the_lane, standby.mark()).mark() == of_the_lane
    fallen = Lease(2, 6, lineage="second", supersedes="first +4")
    with pytest.raises(CommitsLost, match="ends at sequence 6, and 9 was acknowledged"):
        standby.check(fallen)
    assert standby.mark() == Mark(9, 2, {"users": 7}, lineage="second", supersedes="first +4")
    assert standby.is_beside(Lease(2, 6, 1, None, 9, lineage="third", supersedes="second +9 first +4"))


def test_a_standby_has_what_it_was_told_also_where_the_acceptance_that_it_saw_is_lost() -> None:
    standby = knowing(ALONE)
    standby.seen(Lease(2, 9, lineage="second", supersedes="first +4"))
    with pytest.raises(CommitsLost, match="ends at sequence 3, and 4 was acknowledged"):
        standby.check(Lease(1, 3, lineage="first"))
    assert not standby.is_in_doubt


def test_a_standby_that_has_only_seen_an_accepted_loss_knows_what_was_given_up() -> None:
    standby = HighWater("users")
    standby.seen(Lease(2, 9, lineage="second", supersedes="first +4"))
    standby.learn(ALONE)
    assert standby.mark().sequence == 9
    with pytest.raises(CommitsLost, match="ends at sequence 6, and 9 was acknowledged"):
        standby.check(Lease(2, 6, lineage="second", supersedes="first +4"))


def test_who_alone_knows_a_lineage_that_no_word_could_name_says_what_helps() -> None:
    """There is no mark that would have named it."""
    known = knowing(Mark(6, 2, {"users": 7}, lineage="second", supersedes="first +3"))
    # Another process may have gone on by then.
    for sequence in (4, 9):
        by_word = Lease(3, sequence, loss_accepted=6, lineage="third", supersedes="first +6")
        with pytest.raises(CommitsLost, match=r"does not name that lineage: .* start this process again"):
            known.check(by_word)
    with pytest.raises(CommitsLost) as refused:
        known.check(Lease(3, 4, lineage="third", supersedes="first +6"))
    assert "start this process again" not in str(refused.value)
    known.check(Lease(3, 4, loss_accepted=6, lineage="third", supersedes="second +6"))


def test_who_was_told_of_an_accepted_loss_may_know_of_ids_that_are_above_those_there() -> None:
    lease = Lease(3, 6, lineage="second", supersedes="first +3")
    told = knowing(Mark(3, 1, {"users": 7}, lineage="first"))
    told.learn(Mark(6, 2, {}, lineage="second", supersedes="first +3"))
    assert told.is_beside(lease)
    told.goes_on_in(lease)
    assert not told.is_beside(lease)
    assert not knowing(Mark(6, 2, {"users": 7}, lineage="second", supersedes="first +3")).is_beside(lease)
