"""A right or a table of the lane's own that is missing is an outage, and no command's fault, in whatever case a server
with `lower_case_table_names` says the table.
"""

import pymysql
import pytest

from coordinator import Service, VersionedRow
from coordinator.stores.mysql import errors as mysql
from coordinator.stores.port import BatchRefused, NotAdmitted, StoreError, StoreUnavailable
from coordinator.stores.sql.declared_tables import tables_of
from coordinator.stores.sql.schema import Schema

plans = Service("plans")


@plans.row
class Seat(VersionedRow, table="SeatPlans", key="id"):
    id: int


NAMES = Schema(tables_of(plans)).names


@pytest.mark.parametrize(
    ("said", "means"),
    [("SeatPlans", NotAdmitted), ("seatplans", NotAdmitted), ("old_seatplans", BatchRefused), ("plans", BatchRefused)],
)
@pytest.mark.parametrize("quoted", ["'{}'", "`shop`.`{}`"])
def test_a_right(said: str, means: type[StoreError], quoted: str) -> None:
    text = f"INSERT command denied to user 'l1'@'localhost' for table {quoted.format(said)}"
    assert type(mysql.translated(pymysql.err.OperationalError(1142, text), NAMES)) is means


@pytest.mark.parametrize(
    ("said", "means"),
    [("SeatPlans", StoreUnavailable), ("seatplans", StoreUnavailable), ("old_seatplans", BatchRefused)],
)
def test_a_table(said: str, means: type[StoreError]) -> None:
    error = pymysql.err.ProgrammingError(1146, f"Table 'shop.{said}' doesn't exist")
    assert type(mysql.translated(error, NAMES)) is means
