"""Errors that a worker of a pool raises: its parent gets them as they were."""

import copy
import errno
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import pytest

from coordinator.service.errors import (
    BrokerUnavailable,
    CommandFailed,
    CommandPending,
    CommandRejected,
    ConfigurationError,
    CoordinatorError,
    InvalidCommand,
    NotFound,
    OutcomeUnknown,
    OutcomeUnreadable,
    Rejected,
    UnreadableRow,
)
from coordinator.service.outside_calls import EffectRetry


class _Exhausted(Rejected):
    """One of an application's, with a slot."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        super().__init__("exhausted", "too few are left")
        self.left = left


class _Unsent(CoordinatorError, OSError):
    """One of an application's that is one of Python's, too."""

    def __init__(self, errno: int, text: str) -> None:
        super().__init__(errno, text)


ID = "00000000-0000-7000-8000-000000000001"
WITHIN_S = 20.0
ERRORS: list[CoordinatorError] = [
    CommandRejected(ID, "sold_out", "no seat is left", replayed=True, sequence=7),
    CommandFailed(ID, "handler_error", "a defect"),
    CommandPending(ID),
    OutcomeUnreadable(ID, "it has another field"),
    Rejected("sold_out", "no seat is left"),
    NotFound("seat_not_found", "there is no seat 7"),
    InvalidCommand("no number", field="id"),
    UnreadableRow("seats", 7, "holder"),
    ConfigurationError("AMQP_URL: it is none"),
    BrokerUnavailable("it is away"),
    OutcomeUnknown("it may be applied"),
    EffectRetry("the other side is busy"),
]


def said(error: BaseException) -> tuple[object, ...]:
    return type(error), str(error), error.args, vars(error)


def pickled(error: CoordinatorError) -> object:
    return pickle.loads(pickle.dumps(error))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("elsewhere", [pickled, copy.copy])
def test_an_error_is_the_same_elsewhere(
    error: CoordinatorError, elsewhere: Callable[[CoordinatorError], object]
) -> None:
    error.add_note("with a note")
    again = elsewhere(error)
    assert isinstance(again, CoordinatorError)
    assert said(again) == said(error)


@pytest.mark.parametrize("elsewhere", [pickled, copy.copy])
def test_so_is_one_of_an_application_with_what_is_not_in_its_dict(
    elsewhere: Callable[[CoordinatorError], object],
) -> None:
    exhausted, unsent = elsewhere(_Exhausted(3)), elsewhere(_Unsent(errno.EPIPE, "gone"))
    assert isinstance(exhausted, _Exhausted)
    assert (exhausted.left, exhausted.code, str(exhausted)) == (3, "exhausted", "too few are left")
    assert isinstance(unsent, _Unsent)
    assert (unsent.errno, str(unsent)) == (errno.EPIPE, str(_Unsent(errno.EPIPE, "gone")))


def rejected() -> None:
    raise CommandRejected(ID, "sold_out", "no seat is left")


def test_a_rejection_in_a_worker_does_not_break_its_pool() -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        with pytest.raises(CommandRejected, match="no seat is left"):
            pool.submit(rejected).result(WITHIN_S)
        assert pool.submit(abs, -1).result(WITHIN_S) == 1
