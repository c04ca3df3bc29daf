"""Values at the border of each type, from HTTP through a made gateway and a lane into each database, and back.

A row that somebody else has spoiled there is a fault of that row alone, as clients meet it.
"""

import json
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import text

from coordinator.runtime.addresses import parse_address
from coordinator.stores.kinds import kind_of
from coordinator.stores.sql.kind import SqlKind
from tests.e2e.test_rest import Api
from tests.support.borders import borders
from tests.support.databases import FreshDatabases
from tests.support.system import System, wait_ready

TAKEN = {
    "number": ["0", "-0", str(2**63 - 1), str(-(2**63))],
    "text": [
        '""',
        '" "',
        '"a "',
        '"%s"',
        r'"\\"',
        '"\'"',
        r'"\u2028"',
        r'"\uffff"',
        r'"e\u0301"',
        '"' + "😀" * 20 + '"',
    ],
    "long": ['"' + "y" * 70_000 + '"', '"' + "😀" * 17_000 + '"'],
    "data": ['""', '"AA=="', '"/w=="'],
    "flag": ["true", "false"],
    "ratio": ["0", "-0.0", "0.1", "1.7976931348623157e308", "5e-324", "9007199254740993", "1e-400"],
    "price": ["0", "-0.0", "0.10", "1e2", "-9999999999.99", '"1E+2"', '"-0"'],
    "amount": ["0.0000000001", "999999999999999999999999.9999999999", "1e23"],
    "day": ['"0001-01-01"', '"9999-12-31"', '"2024-02-29"'],
    "hour": ['"00:00:00"', '"23:59:59.999999"', '"00:00:00.000001"'],
    "span": ['"PT0S"', '"-PT1S"', '"P106751991DT14454.775807S"', '"-P106751991D"'],
    "seen": ['"0001-01-01T00:00:00Z"', '"9999-12-31T23:59:59.999Z"', '"0999-12-31T00:00:00Z"'],
    "reference": ['"00000000-0000-0000-0000-000000000000"', '"ffffffff-ffff-ffff-ffff-ffffffffffff"'],
    "colour": [r'"\u00dcnder ' + r"'quotes' \\" + '"'],
    "document": ["{}", '{"a":-0.0}', '{"a":9223372036854775807}', '{"a":1.0}', '{"":1}', '{"a.b":1}', '{"b":1,"a":2}'],
    "prices": ['[0.10, "1.0", 1e2]', "[]", "[1e400]"],
}
REFUSED = {
    "number": [str(2**63), "1e3", "true"],
    "text": [r'"\u0000"', r'"\ud800"', '"' + "x" * 21 + '"'],
    "ratio": ["1e309"],
    "price": ["10000000000", "0.001", '"NaN"', '"Infinity"', "1e400"],
    "amount": ["1000000000000000000000000"],
    "day": ['"0000-01-01"', '"10000-01-01"', '"infinity"'],
    "hour": ['"24:00:00"', '"10:00:00Z"'],
    "span": ['"P999999999D"'],
    "seen": ['"9999-12-31T23:59:59-01:00"', '"2024-01-01T00:00:00"', '"2024-01-01T00:00:00.1234Z"'],
    "document": ['{"a":9223372036854775808}', r'{"a":"\u0000"}', '{"$a":1}'],
    "prices": ['["NaN"]'],
}


class Borders(Api):
    async def put(self, number: int, column: str, value: str, **headers: str) -> tuple[int, Any, Any]:
        """The value as JSON text: no JSON library is to change its spelling."""
        body = f'{{"id": {number}, "{column}": {value}}}'.encode()
        sent = {"Content-Type": "application/json"} | {name.replace("_", "-"): each for name, each in headers.items()}
        async with self._session.post(f"{self._url}/borders/commands/put", data=body, headers=sent) as response:
            return response.status, json.loads(await response.read()), response.headers


@pytest.fixture(params=["USERS_DATABASE_URL", "PAYMENTS_DATABASE_URL", "ITEMS_DATABASE_URL", "SQLite"])
def url(request: pytest.FixtureRequest, databases: FreshDatabases, tmp_path: Path) -> str:
    if request.param == "SQLite":
        return f"sqlite:///{tmp_path / 'borders.sqlite'}"
    return databases.new(request.param)


@pytest.fixture
async def api(url: str, system: System) -> AsyncIterator[Borders]:
    system.prepare_other("tests.support.borders:borders", borders, url)
    started = [system.launch_coordinator("borders", {}), system.launch_gateway("borders", {})]
    for process, ready in started:
        wait_ready(ready, process)
    async with aiohttp.ClientSession() as session:
        yield Borders(session, system.urls["borders"])


async def test_values_come_back_and_a_spoiled_row_is_alone(api: Borders, url: str) -> None:
    number = 0
    for column, values in TAKEN.items():
        for value in values:
            number += 1
            status, written, _ = await api.put(number, column, value)
            assert status == 200, (column, value, written)
            assert (await api("GET", f"/borders/kept/{number}"))[:2] == (200, written)
            assert (await api("GET", f"/borders/kept?limit=1&after={number - 1}"))[1]["items"] == [written]
            again = await api.put(number, column, value)
            assert again[:2] == (200, written | {"version": 2}), "and the lane has read it back"
    for column, values in REFUSED.items():
        for value in values:
            status, problem, _ = await api.put(1000, column, value)
            assert problem["code"] in ("invalid_arguments", "malformed_json", "invalid_row"), (column, value, problem)
    assert (await api("GET", "/borders/kept/1000"))[0] == 404
    await amounts_of_one_key(api)
    kind = kind_of(parse_address(url))
    if isinstance(kind, SqlKind):
        spoil(kind, url)
        await meets_a_spoiled_row(api)


async def amounts_of_one_key(api: Borders) -> None:
    # Said with its version it travels as it was sent: a number, and no text.
    key = {"Idempotency_Key": "pay-1", "Command_Version": "1"}
    assert (await api.put(2000, "amount", "0.10", **key))[0] == 200
    status, problem, _ = await api.put(2000, "amount", "0.1", **key)
    assert (status, problem["code"]) == (422, "idempotency_mismatch")
    status, _, headers = await api.put(2000, "amount", "0.10", **key)
    assert (status, headers["Idempotent-Replayed"]) == (200, "true")


def spoil(kind: SqlKind, url: str) -> None:
    """Row 2, with what Python has no value for."""
    day = {"postgresql": "infinity", "mysql": "0000-00-00"}.get(kind.dialect.driver.partition("+")[0], "nonsense")
    engine = kind.dialect.engine(parse_address(url))
    try:
        with closing(engine.connect()) as connection:
            if "mysql" in kind.dialect.driver:
                connection.execute(text("SET sql_mode = ''"))
            connection.execute(text("UPDATE kept SET day = :day WHERE id = 2"), {"day": day})
            connection.commit()
    finally:
        engine.dispose()


async def meets_a_spoiled_row(api: Borders) -> None:
    status, problem, _ = await api("GET", "/borders/kept/2")
    assert (status, problem["code"]) == (500, "row_unreadable")
    assert problem["trace_id"]
    page = (await api("GET", "/borders/kept"))[1]
    assert ([row["id"] for row in page["items"]], page["next"]) == ([1], 1)
    status, problem, _ = await api("GET", "/borders/kept?after=1")
    assert (status, problem["code"], problem["next"]) == (500, "row_unreadable", 2)
    page = (await api("GET", "/borders/kept?after=2&limit=2"))[1]
    assert [row["id"] for row in page["items"]] == [3, 4]
    status, problem, _ = await api.put(2, "number", "1")
    assert (status, problem["code"]) == (502, "row_unreadable")
    assert (await api.put(3, "number", "1"))[0] == 200
    assert (await api("GET", "/readyz"))[0] == 200
