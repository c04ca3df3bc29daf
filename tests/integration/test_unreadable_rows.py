"""Rows that somebody else has spoiled on real servers: values for which Python has none, or of another type."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from typing import Any, ClassVar

import psycopg
import pymysql
import pytest
from bson import decode, encode
from bson.datetime_ms import DatetimeMS
from bson.decimal128 import Decimal128
from pymongo import MongoClient

from coordinator.migrations.migrate import migrate
from coordinator.reading import UnreadableRow, open_database, row_of_document
from coordinator.runtime.addresses import parse_address
from coordinator.runtime.settings import DatabaseSettings
from coordinator.stores.mongodb.client import open_client
from coordinator.stores.mongodb.documents import document_of
from coordinator.stores.mongodb.driver_arguments import connection_of as mongodb_connection
from coordinator.stores.mysql.driver_arguments import connection_of as mysql_connection
from coordinator.stores.open import open_store
from coordinator.stores.port import Store
from coordinator.stores.postgresql.driver_arguments import connection_of as postgresql_connection
from tests.support.databases import FreshDatabases
from tests.support.mongodb_rights import READ_WRITE, permitted
from tests.support.unreadable_contract import DEEP_JSON, ODD, Thing, UnreadableContract, thing


class _OnServer(UnreadableContract):
    setting: ClassVar[str]

    def __init_subclass__(cls) -> None:
        cls.url = ""

    @pytest.fixture
    def spoiled(self, databases: FreshDatabases) -> "Iterator[_OnServer]":
        self.url = databases.new(self.setting)
        migrate(ODD, DatabaseSettings(database_url=self.url))
        with ExitStack() as opened:
            self._opened = opened
            yield self

    def open_store(self) -> Store:
        return self._opened.enter_context(closing(open_store(self.url, ODD)))


class TestPostgresUnreadable(_OnServer):
    setting = "USERS_DATABASE_URL"
    spoils = (
        ("day", "'infinity'"),
        ("day", "'-infinity'"),
        ("day", "'0044-03-15 BC'"),
        ("day", "'10000-01-01'"),
        ("hour", "'24:00'"),
        ("seen", "'infinity'"),
        ("seen", "'-infinity'"),
        ("seen", "'0044-03-15 BC'"),
        ("seen", "'10000-01-01 00:00:00+00'"),
        ("price", "'NaN'"),
        ("ratio", "'NaN'"),
        ("ratio", "'-Infinity'"),
        ("note", "'[1]'"),
        ("note", """'{"a": 1e999}'"""),
        ("note", DEEP_JSON),
    )

    # The server itself takes no NaN in JSON.
    json_texts = tuple(each for each in UnreadableContract.json_texts if not {*"NI"} & {*each[1]})

    def spoil(self, column: str, value: Any) -> None:
        with psycopg.connect(**postgresql_connection(parse_address(self.url))) as connection:
            connection.execute(f"UPDATE things SET {column} = {value} WHERE id = 2".encode())


class TestMysqlUnreadable(_OnServer):
    setting = "PAYMENTS_DATABASE_URL"
    spoils = (
        ("day", "'0000-00-00'"),
        ("day", "'2026-00-10'"),
        ("hour", "'24:00:00'"),
        ("hour", "'25:00:00'"),
        ("hour", "'838:59:59'"),
        ("hour", "'-01:00:00'"),
        ("seen", "'0000-00-00 00:00:00'"),
        ("seen", "'2026-02-00 00:00:00'"),
        ("note", "'nonsense'"),
        ("note", """'{"a": NaN}'"""),
        ("note", "'[1]'"),
        ("note", DEEP_JSON),
    )

    def spoil(self, column: str, value: Any) -> None:
        with closing(pymysql.connect(**mysql_connection(parse_address(self.url)))) as connection:
            with connection.cursor() as cursor:
                cursor.execute("SET sql_mode = ''")
                cursor.execute(f"UPDATE things SET {column} = {value} WHERE id = 2")
            connection.commit()


class TestMongoUnreadable(_OnServer):
    setting = "ITEMS_DATABASE_URL"
    spoils = (
        ("name", 5),
        ("name", b"secret"),
        ("number", "secret"),
        ("number", 1.5),
        ("number", True),
        ("price", Decimal128("NaN")),
        ("price", Decimal128("1.234")),
        ("price", 1.5),
        ("day", "infinity"),
        ("day", datetime(2026, 1, 2, tzinfo=UTC)),
        ("hour", "24:00"),
        ("seen", "2026-01-02"),
        ("ratio", "0.5"),
        ("ratio", float("nan")),
        ("note", [1]),
        ("note", "secret"),
    )
    json_null = "null"

    json_texts = (
        ("exact", {"a": 0.1}),
        ("exact", {"a": "0.10"}),
        ("exact", {"a": 5}),
        ("exact", {"a": 2**60}),
        ("exact", {"a": Decimal128("0.10")}),
        ("note", {"a": Decimal128("0.10")}),
        ("note", {"a": float("nan")}),
        ("note", {"a": datetime(2026, 1, 2, tzinfo=UTC)}),
        ("note", {"a": 2**60}),
    )

    @pytest.mark.parametrize("milliseconds", [1 << 50, -1 << 50])
    def test_a_date_beyond_python_is_of_its_row_alone(self, milliseconds: int) -> None:
        """The stand-in for MongoDB has no such dates."""
        kept = encode(document_of(thing(2)) | {"seen": DatetimeMS(milliseconds)})
        with closing(open_client({"host": "localhost", "connect": False}, "test")) as client:
            sent = decode(kept, client.codec_options)
        documents: Any = open_database("mongodb://localhost/x")
        read = decode(kept, documents.codec_options)
        for document in (sent, read):
            with pytest.raises(UnreadableRow) as raised:
                row_of_document(Thing, document)
            assert (raised.value.key, raised.value.column) == (2, "seen")

    @pytest.fixture(autouse=True)
    def _all_is_permitted(self) -> Iterator[None]:
        with permitted(READ_WRITE):
            yield

    def spoil(self, column: str, value: Any) -> None:
        address = parse_address(self.url)
        with MongoClient[dict[str, Any]](**mongodb_connection(address)) as client:
            client[address.database]["things"].update_one({"_id": 2}, {"$set": {column: value}})

    def mended(self, column: str, expression: str) -> Any:
        return {
            "name": expression.strip("'"),
            "number": 7,
            "price": Decimal128("1.50"),
            "day": "2026-01-02",
            "hour": "03:04:00.000000",
            "seen": datetime(2026, 1, 2, tzinfo=UTC),
            "ratio": 0.5,
            "note": {"a": 1},
            "exact": {},
        }[column]
