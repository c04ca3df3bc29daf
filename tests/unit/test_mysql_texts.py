"""Which texts of a table on MySQL are refused, and what an operator is told to do."""

from collections.abc import Sequence
from typing import Annotated, Any

import pytest
from msgspec import Meta

from coordinator import Row, Service
from coordinator.runtime.addresses import parse_address
from coordinator.service.errors import ConfigurationError
from coordinator.service.saga_timeline import SagaStep
from coordinator.stores.lane_tables import DeadLetter, OutboxEntry, ParkedCommand
from coordinator.stores.mysql.collations import check_texts
from coordinator.stores.mysql.store import MysqlStore


class Country(Row, table="countries", key="code"):
    code: Annotated[str, Meta(max_length=2)]
    name: Annotated[str, Meta(max_length=99)]


def test_what_mends_one_column_takes_no_characters_from_the_others() -> None:
    """A statement for a table's character set changes all of its texts."""

    def first_row(statement: str, _: Sequence[Any]) -> Sequence[Any]:
        # `code` is of ASCII on purpose, and `name` is not.
        return ("code", "ascii_general_ci") if "collation_name NOT LIKE" in statement else (None, None)

    with pytest.raises(ConfigurationError, match="countries: code with the collation ascii_general_ci") as refused:
        check_texts(first_row, [Country], "GEO_DATABASE_URL")
    wanted = "ALTER TABLE countries CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
    assert str(refused.value).rpartition(": ")[2] == wanted


def test_steps_of_sagas_of_before_are_found_by_their_ids_alone() -> None:
    """No release before looked for them by `saga`, so a table that somebody made may compare it otherwise."""
    asked: list[Sequence[str]] = []

    def first_row(statement: str, values: Sequence[Any]) -> None:
        if "collation_name NOT LIKE" in statement:
            asked.append(values[1])

    check_texts(first_row, [SagaStep], "TRIPS_DATABASE_URL")
    assert asked == [("command_id",)]


def test_bytes_are_written_as_bytes_whatever_type_of_mysql_s_they_have() -> None:
    """The driver's general function is slower, and takes a text for them, too."""
    store = MysqlStore(parse_address("mysql://lane@db/geo"), Service("geo"))
    for model, column in ((DeadLetter, "arguments"), (ParkedCommand, "message"), (OutboxEntry, "arguments")):
        writer = store.statements[model]._writers[column]
        assert writer(b"\x00a") == "x'0061'", (model, column)
