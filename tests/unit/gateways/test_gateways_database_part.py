"""The database as a part of a gateway: it is asked once at a time, however many ask."""

import asyncio
from typing import Any, cast

import pytest

from coordinator.client import database
from coordinator.client.database import NO_TLS, NoTls, close_database, open_database, reading_problem
from coordinator.http import database_part
from coordinator.http.database_part import HAS_MOVED, NOT_OF_USE, NOT_YET, DatabasePart
from coordinator.service.errors import DatabaseUnavailable
from coordinator.stores.moves import Moved


class Answers:
    """Stands for the database: each answer is given by the test."""

    def __init__(self) -> None:
        self.asked: list[asyncio.Future[str | None]] = []

    async def __call__(self, *_: object) -> str | None:
        self.asked.append(asyncio.get_running_loop().create_future())
        return await self.asked[-1]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    made = Answers()
    monkeypatch.setattr(database_part, "reading_problem", made)
    return made


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_those_who_come_while_it_is_asked_share_the_next_answer(answers: Answers) -> None:
    part = DatabasePart(cast(Any, None), "users", ())
    first = asyncio.create_task(part.problem())
    await settle()
    others = [asyncio.create_task(part.problem()) for _ in range(20)]
    await settle()
    assert len(answers.asked) == 1
    answers.asked[0].set_result("what was so before they came")
    await settle()
    assert len(answers.asked) == 2
    answers.asked[1].set_result(None)
    await settle()
    assert len(answers.asked) == 2
    assert await first == "what was so before they came"
    assert await asyncio.gather(*others) == [None] * 20


async def test_an_answer_that_failed_or_that_nobody_awaits_any_more_is_nobodys(answers: Answers) -> None:
    part = DatabasePart(cast(Any, None), "users", ())
    tasks = [asyncio.create_task(part.problem()) for _ in range(3)]
    await settle()
    tasks[0].cancel()
    await settle()
    answers.asked[1].set_exception(DatabaseUnavailable("away"))
    await settle()
    answers.asked[2].set_result(None)
    assert await tasks[2] is None
    assert tasks[0].cancelled()
    with pytest.raises(DatabaseUnavailable):
        await tasks[1]


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (NoTls("no TLS: connection to server at 10.0.0.5, port 5433 failed"), NO_TLS),
        (Moved("the lane has moved to 10.0.0.5"), HAS_MOVED),
    ],
)
async def test_what_names_a_host_is_for_the_log_and_not_for_anybody(
    answers: Answers, error: Exception, problem: str
) -> None:
    part = DatabasePart(cast(Any, None), "users", ())
    asking = asyncio.create_task(part.problem())
    await settle()
    answers.asked[0].set_exception(error)
    assert (await asking, part.reason) == (problem, str(error))


async def test_the_words_of_a_driver_are_no_problem_for_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "lack_of", lambda _: "tls")
    engine = open_database("postgresql://reader@127.0.0.1:9/users")
    with pytest.raises(NoTls, match="port 9"):
        await reading_problem(engine, "users", ("users",))
    await close_database(engine)


async def test_nothing_is_read_there_until_it_was_of_use_and_after_it_was_refused(answers: Answers) -> None:
    part = DatabasePart(cast(Any, None), "users", ())
    said: list[str | None] = [part.refusal]
    for answer in (DatabaseUnavailable("away"), None, DatabaseUnavailable("away"), "another's", Moved("there"), None):
        asked = asyncio.create_task(part.problem())
        await settle()
        if isinstance(answer, Exception):
            answers.asked[-1].set_exception(answer)
        else:
            answers.asked[-1].set_result(answer)
        await asyncio.wait((asked,))
        asked.exception()
        said.append(part.refusal)
    assert said == [NOT_YET, NOT_YET, None, None, NOT_OF_USE, NOT_OF_USE, None]
