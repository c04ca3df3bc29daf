"""When a command is due that a handler emits for later, and how timers are sorted by that."""

from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)


def due_time(now: datetime, after: timedelta | None, at: datetime | None) -> datetime:
    """When a command is due, in UTC, to the millisecond and not before: `now`, if that is over.

    Raises TypeError for two times and for values that are none, and ValueError for a time without a zone and for one
    that no calendar has.
    """
    if after is not None and at is not None:
        raise TypeError("a command is emitted `after` a while or `at` a time, not both")
    try:
        due = _aware(at) if at is not None else now + _duration("after", after)
        return max(now, _whole_ms(due))
    except OverflowError:
        raise ValueError(f"{at if at is not None else f'{after} after {now}'} is beyond the end of time") from None


def limit_time(due: datetime, limit: timedelta) -> datetime:
    """When the time for an answer is over, of a command that is sent when it is `due`. Raises as `due_time`."""
    if _duration("limit", limit) <= timedelta():
        raise ValueError(f"a limit is a time in which there can be an answer, not {limit!r}")
    return due_time(due, limit, None)


def deadline_ms(over_at: datetime) -> int:
    """The deadline of a command for whose answer the time is over then, in ms.

    It ends before anybody is told that there was no answer, who may take the command back: where the command waited for
    its key, it must not be done behind that.
    """
    return (over_at - _EPOCH) // _MS - 1


def timer_id(due_at: datetime, number: int) -> str:
    """The key of a timer: texts that sort by due time, and then by number."""
    return f"{(due_at - _EPOCH) // _MS:015d}-{number:019d}"


def _aware(at: object) -> datetime:
    if not isinstance(at, datetime):
        raise TypeError(f"`at` is a datetime, not {at!r:.100}")
    if at.utcoffset() is None:
        raise ValueError(f"`at` needs a time zone, such as `work.now` has: {at!r}")
    return at.astimezone(UTC)


def _duration(name: str, value: object) -> timedelta:
    if not isinstance(value, timedelta):
        raise TypeError(f"`{name}` is a timedelta, not {value!r:.100}")
    return value


def _whole_ms(at: datetime) -> datetime:
    """Rounded up: a timer may be late, not early."""
    rest = at.microsecond % 1000
    return at + timedelta(microseconds=1000 - rest) if rest else at
