"""Random bytes are given out once."""

import os
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from uuid import RFC_4122, UUID

from coordinator.service.draws import AT_ONCE, Draws
from coordinator.service.ids import new_command_id


def test_draws_have_their_size_and_differ() -> None:
    draws = Draws(10)
    drawn = [draws.next() for _ in range(3 * AT_ONCE)]
    assert {len(one) for one in drawn} == {10}
    assert len(set(drawn)) == len(drawn)


def test_threads_draw_differently() -> None:
    draws = Draws(10)

    def draw(_: int) -> list[bytes]:
        return [draws.next() for _ in range(20 * AT_ONCE)]

    with ThreadPoolExecutor(4) as threads:
        drawn = [one for some in threads.map(draw, range(4)) for one in some]
    assert len(set(drawn)) == len(drawn)


def test_a_forked_process_draws_differently() -> None:
    draws = Draws(10)
    draws.next()
    ours, theirs = get_context("fork").Pipe()
    child = os.fork()
    if child == 0:
        theirs.send(draws.next())
        os._exit(0)
    os.waitpid(child, 0)
    assert ours.recv() != draws.next()


def test_command_ids_are_uuids_of_version_7_in_the_order_of_time() -> None:
    ids = [new_command_id() for _ in range(1000)]
    assert {(UUID(one).version, UUID(one).variant) for one in ids} == {(7, RFC_4122)}
    assert len(set(ids)) == len(ids)
    times = [one[:13] for one in ids]
    assert times == sorted(times)
