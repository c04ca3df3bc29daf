"""Ids are shown to viewers, and contents are not: by no id may a guess at a content be proved.

The viewer here has seen the types and the ids of all that led to something, and when; and his guess is right.
"""

import hashlib
import itertools
from collections.abc import Iterable, Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.effects.attempts import EffectResult
from coordinator.lane.outbox import message_of
from coordinator.protocol.fingerprints import FIRST_KEY, UNKEYED
from coordinator.protocol.wire import CommandMessage, Defect
from coordinator.service.ids import derived_command_id, system_command_id
from coordinator.stores.fingerprint_keys import FingerprintKey, new_fingerprint_key
from coordinator.stores.lane_tables import DeadLetter, OutboxEntry
from coordinator.stores.memory import MemoryDatabase, MemoryStore
from coordinator.transports.dead_effects import dead_effect, dead_effect_id
from shared.payments import SERVICE
from shared.payments.commands import OpenPayment
from shared.payments.results import AuthorizeResult
from tests.support.lane_contract import LaneUnderTest, codes, command_id, delivery
from tests.support.ledger import Deposit, OpenAccount

AT_S = 1_700_000_000
DONE = AuthorizeResult(id=1, verdict="authorized", provider_id="pi_1")
RESULTS = (
    EffectResult(command=DONE, is_fact=True),
    EffectResult(command=DONE, is_fact=False),
    EffectResult(command=DONE, is_fact=False, is_doubt=True),
)
FIRST = f"payments.open {command_id(1)}"
SECOND = f"payments.open {command_id(2)}"


def proofs(seen: Iterable[str], guess: bytes, at_s: int = AT_S) -> Iterator[str]:
    """The ids that anybody can compute of what he has seen and of one guess, as ids were and are made."""
    for parent, position in itertools.product(seen, range(4)):
        for before in ("", f"{at_s}\n", *(f"{each.partition(' ')[0]}\n" for each in seen)):
            yield derived_command_id(parent, position, before.encode() + guess)


def effect(result_of: str | None = FIRST, arguments: bytes = b'{"amount":1000}') -> CommandMessage:
    return CommandMessage(command_id(7), "payments.effects.authorize", arguments, result_of=result_of)


def test_the_ids_of_an_effects_results_prove_no_guess_at_its_arguments() -> None:
    database = MemoryDatabase()
    database.tables[FingerprintKey][FIRST_KEY] = new_fingerprint_key(FIRST_KEY)
    lane = LaneUnderTest(MemoryStore(database), service=SERVICE)
    opening = OpenPayment(user_id=1, amount=1000, currency="EUR", payment_method="pm_card_visa")
    (entry,) = lane.settle(delivery(1, opening)).emitted
    assert entry.lane == "effects.payments"
    asked, at_s = message_of(entry), int(entry.created_at.timestamp())
    (opened,) = lane.log()
    seen = (f"{opened.type} {opened.command_id}", f"{asked.type} {asked.command_id}")
    shown = {asked.command_id, *(each.command_id(asked, at_s) for each in RESULTS)}
    assert len(shown) == 4
    assert shown.isdisjoint(proofs(seen, asked.arguments, at_s))
    assert asked.result_of == seen[0]


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_whatever_an_effect_holds_is_no_part_of_the_ids_of_its_results(one: bytes, other: bytes) -> None:
    for each in RESULTS:
        assert each.command_id(effect(arguments=one), AT_S) == each.command_id(effect(arguments=other), AT_S)


@given(st.data())
def test_results_have_one_id_where_they_are_of_one_request_and_of_one_kind_alone(data: st.DataObject) -> None:
    """However often, and wherever, it is carried out. Without its emitter, as releases before had it."""
    requests = st.tuples(
        st.sampled_from([command_id(7), command_id(8)]),
        st.sampled_from(["payments.effects.authorize", "payments.effects.void"]),
        st.sampled_from([None, FIRST, SECOND]),
        st.sampled_from([b"{}", b'{"amount":1}']),
        st.sampled_from([None, AT_S, AT_S + 1]),
        st.sampled_from(RESULTS),
    )

    def told(request: tuple[str, str, str | None, bytes, int | None, EffectResult]) -> tuple[str, object]:
        effect_id, effect_type, result_of, arguments, at_s, result = request
        message = CommandMessage(effect_id, effect_type, arguments, result_of=result_of)
        # An effect with an emitter has its arguments by its id, or by the order to replay it with others.
        means = (*request[:3], arguments if result_of is None else None, at_s, result)
        return result.command_id(message, at_s), means

    (one_id, one), (other_id, other) = told(data.draw(requests)), told(data.draw(requests))
    assert (one_id == other_id) is (one == other)


@pytest.mark.parametrize("at_s", [None, AT_S])
def test_an_effect_of_before_has_the_results_that_workers_of_before_tell(at_s: int | None) -> None:
    """Another copy of it may be with one of these, during an upgrade."""
    for position, each in enumerate(RESULTS):
        said = (b"" if at_s is None else f"{at_s}\n".encode()) + b'{"amount":1000}'
        expected = derived_command_id(f"payments.effects.authorize {command_id(7)}", position, said)
        assert each.command_id(effect(None), at_s) == expected


def test_a_replay_with_other_arguments_within_the_same_second_has_results_of_its_own() -> None:
    """The effect keeps its id, which is the key at the other side; the order to replay it is another command."""
    ids = {each.command_id(effect(by), AT_S) for by in (FIRST, f"lane.replay {command_id(3)}") for each in RESULTS}
    assert len(ids) == 2 * len(RESULTS)


@pytest.mark.parametrize("is_keyed", [True, False])
def test_the_ids_of_a_command_whose_id_was_taken_prove_no_guess_at_it(*, is_keyed: bool) -> None:
    """Its letter is replayed under an id of its own, and so goes what its continuation is told."""
    database = MemoryDatabase()
    if is_keyed:
        database.tables[FingerprintKey][FIRST_KEY] = new_fingerprint_key(FIRST_KEY)
    lane = LaneUnderTest(MemoryStore(database))
    lane.outcomes(delivery(1, OpenAccount(owner="a")))
    taken = delivery(1, Deposit(id=1, amount=5), continuation="shop.replied")
    settlement = lane.settle(taken)
    assert codes(settlement.outcomes) == ["idempotency_mismatch"]
    (told,), (letter,) = settlement.emitted, lane.rows(DeadLetter)
    guessed = UNKEYED.of(taken.commands[0])
    replays = {system_command_id(f"{command_id(1)} {guessed}", "replay")}
    own_id = system_command_id(f"{Deposit.type} {command_id(1)}", "continuation")
    is_proved = told.command_id == system_command_id(own_id, "mismatch", guessed)
    assert (is_proved, system_command_id(letter.source, "replay") in replays) == (not is_keyed, not is_keyed)
    # With another key in use, too, it is the same letter when it comes again.
    database.tables[FingerprintKey][2] = new_fingerprint_key(2)
    again = LaneUnderTest(MemoryStore(database), "again").settle(taken)
    assert codes(again.outcomes) == ["idempotency_mismatch"]
    assert lane.rows(DeadLetter) == [letter]
    assert [each.command_id for each in lane.rows(OutboxEntry)] == [told.command_id]


def test_a_letter_of_a_taken_id_that_a_release_before_wrote_is_known_when_its_command_comes_again() -> None:
    database = MemoryDatabase()
    lane = LaneUnderTest(MemoryStore(database), "before")
    lane.outcomes(delivery(1, OpenAccount(owner="a")))
    taken = delivery(1, Deposit(id=1, amount=5), continuation="shop.replied")
    (told,) = lane.settle(taken).emitted
    database.tables[FingerprintKey][FIRST_KEY] = new_fingerprint_key(FIRST_KEY)
    later = LaneUnderTest(MemoryStore(database), "later")
    assert codes(later.outcomes(taken)) == ["idempotency_mismatch"]
    assert [each.command_id for each in later.rows(OutboxEntry)] == [told.command_id]
    assert len(later.rows(DeadLetter)) == 1


def test_the_id_under_which_a_nameless_effect_is_told_dead_proves_no_guess_at_it() -> None:
    message = CommandMessage(None, "payments.effects.authorize", b'{"amount":1000}', origin="system")
    dead = dead_effect(message, Defect("missing_command_id", "it has no id"))
    name = hashlib.sha256(f"{dead.effect_type}\n{dead.body}".encode()).hexdigest()
    shown = {dead_effect_id("payments", dead, "1 0") for _ in range(2)}
    assert system_command_id("payments", name, "dead", "1 0") not in shown
    assert len(shown) == 2, "nothing but its content tells whether it is the same one"
    named = msgspec.structs.replace(dead, command_id=command_id(7))
    assert dead_effect_id("payments", named, "1 0") == dead_effect_id("payments", named, "1 0")
