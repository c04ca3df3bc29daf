"""When one that waits for a lane's lease holds its holder for silent."""

from coordinator.transports.redis.lane_lease import POLL_S, HolderSilence

SILENT_S = 2.0
LOOK_MS = int(POLL_S * 1000)
LEASE_MS = 4_000
LOOKS = int(SILENT_S / POLL_S)


def test_a_holder_that_renews_its_lease_is_never_silent() -> None:
    silence = HolderSilence(SILENT_S)
    renewed_every = 4
    left_ms = [LEASE_MS - LOOK_MS * (look % renewed_every) for look in range(10 * LOOKS)]
    assert not any(silence.is_silent_after("holder", each) for each in left_ms)


def test_a_holder_is_silent_once_so_many_looks_have_seen_no_renewal() -> None:
    silence = HolderSilence(SILENT_S)
    seen = [silence.is_silent_after("holder", LEASE_MS - LOOK_MS * look) for look in range(LOOKS + 1)]
    assert seen == [False] * LOOKS + [True]


def test_a_pause_of_redis_is_one_look_whatever_it_takes_of_the_lease() -> None:
    silence = HolderSilence(SILENT_S)
    assert [silence.is_silent_after("holder", left) for left in (LEASE_MS, 1)] == [False, False]
    assert not silence.is_silent_after("holder", LEASE_MS)


def test_a_lease_that_never_ends_is_silent_as_nobody_renews_such_a_one() -> None:
    silence = HolderSilence(SILENT_S)
    seen = [silence.is_silent_after("a stranger's", -1) for _ in range(LOOKS + 1)]
    assert seen == [False] * LOOKS + [True]


def test_the_silence_of_one_holder_is_not_that_of_the_next() -> None:
    silence = HolderSilence(SILENT_S)
    for look in range(LOOKS):
        silence.is_silent_after("first", LEASE_MS - LOOK_MS * look)
    assert not silence.is_silent_after("second", 1)
