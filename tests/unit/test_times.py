"""Every time that leaves the system is written alike: UTC, six digits of a second, `Z`."""

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Struct, UnsetType

from coordinator.operate.output import cell, json_text
from coordinator.runtime import log_lines
from coordinator.service.json_text import time_for_people, to_json
from coordinator.stores.sqlite import store as sqlite
from coordinator.testing import LaneInMemory
from shared.users import SERVICE
from shared.users.commands import CreateUser
from shared.users.model import User

WHOLE = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
TEXT = "2026-02-03T04:05:06.000000Z"
MILLISECOND = timedelta(milliseconds=1)

times = st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  # they have one


def test_every_year_has_four_digits_for_eyes() -> None:
    early = datetime(110, 5, 25, 1, 2, 3, tzinfo=UTC)
    assert time_for_people(early) == "0110-05-25 01:02:03Z"
    assert cell(early) == "0110-05-25 01:02:03.000000Z"


class Shown(Struct, omit_defaults=True, kw_only=True):
    at: datetime | None = None
    from_: int | UnsetType = msgspec.field(name="from", default=UNSET)
    more: Any = None
    raw: msgspec.Raw = msgspec.Raw(b"null")
    left_out: int = 7


@given(st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))])))
def test_sqlite_keeps_a_time_as_one_text(time: datetime) -> None:
    """Which sorts as times do, whatever digits a second has."""
    try:
        there = time.astimezone(UTC)
    except OverflowError:
        return
    text = sqlite._text(time)
    assert text == there.replace(tzinfo=None).isoformat(" ", "microseconds")
    assert (sqlite._time(text), str(sqlite._time(text))) == (there, str(there))


@pytest.mark.parametrize(
    "text",
    ["2026-02-03 04:05:06", "2026-02-03T04:05:06Z", "2026-02-03 05:05:06.000+01:00", "2026-02-03 05:05:06.0+0100"],
)
def test_sqlite_gives_times_that_others_have_written(text: str) -> None:
    assert sqlite._time(text) == WHOLE


@given(times, st.sampled_from([1, 1000, 1_000_000]), st.text(max_size=5))
def test_a_time_has_six_digits_and_reads_as_it_was(time: datetime, precision: int, name: str) -> None:
    time = time.replace(microsecond=time.microsecond // precision * precision % 1_000_000)
    shown = Shown(
        at=time, from_=5, more={"list": [time, name, None, 1.5], name: b"bytes"}, raw=msgspec.Raw(b'{ "x":1}')
    )
    text = to_json(shown).decode()
    assert len(re.findall(r'[0-9]:[0-9]{2}\.[0-9]{6}Z"', text)) == 2
    # Nothing else is changed.
    assert msgspec.json.decode(re.sub(r'\.000000Z"', 'Z"', text)) == msgspec.json.decode(
        re.sub(r'\.000000Z"', 'Z"', msgspec.json.encode(shown).decode())
    )
    assert msgspec.json.decode(text, type=Shown).at == time


def test_a_whole_second_is_written_like_any_other() -> None:
    assert msgspec.json.decode(to_json({"at": WHOLE, "text": "2026-02-03T04:05:06Z"})) == {
        "at": TEXT,
        "text": "2026-02-03T04:05:06Z",
    }
    assert json_text([WHOLE]) == f'["{TEXT}"]'
    assert cell(WHOLE.astimezone(timezone(timedelta(hours=2)))) == "2026-02-03 04:05:06.000000Z"


def test_the_outcome_of_a_command_in_a_whole_second_is_like_any_other() -> None:
    lane = LaneInMemory(SERVICE, now=WHOLE)
    assert msgspec.json.decode(lane.apply(CreateUser(name="A", email="a@x")).outcome.result)["created_at"] == TEXT
    lane.now += MILLISECOND
    created = msgspec.json.decode(lane.apply(CreateUser(name="A", email="b@x")).outcome.result)["created_at"]
    assert created == TEXT.replace("000000Z", "001000Z")
    assert msgspec.json.decode(to_json(lane.rows(User)[0]))["created_at"] == TEXT


def test_a_log_line_in_a_whole_second_is_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Clock":
            return cls(2026, 2, 3, 4, 5, 6, tzinfo=tz)

    monkeypatch.setattr(log_lines, "datetime", Clock)
    assert log_lines._now() == TEXT
