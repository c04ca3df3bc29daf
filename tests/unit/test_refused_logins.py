"""A login that is refused may be of a role that nobody has made: the server does not tell, so it is said."""

import psycopg
import pymysql
import pytest

from coordinator.stores.mysql import errors as mysql
from coordinator.stores.port import MAKES_ROLES, NotAdmitted
from coordinator.stores.postgresql import errors as postgresql

FAILED = 'connection failed: connection to server at "::1", port 5432 failed: FATAL:  '


@pytest.mark.parametrize(
    ("number", "text", "is_advised"),
    [
        (1045, "Access denied for user 'lane'@'localhost' (using password: YES)", True),
        (1698, "Access denied for user 'root'@'localhost'", True),
        (1049, "Unknown database 'seats'", False),
        (1130, "Host '10.0.0.7' is not allowed to connect", False),
    ],
)
def test_on_mysql(number: int, text: str, is_advised: bool) -> None:
    refused = mysql.translated(pymysql.err.OperationalError(number, text), ())
    assert isinstance(refused, NotAdmitted)
    assert (MAKES_ROLES in str(refused)) is is_advised


@pytest.mark.parametrize(
    ("text", "is_advised"),
    [
        ('password authentication failed for user "lane"', True),
        ('role "lane" does not exist', True),
        ('database "seats" does not exist', False),
        ('role "lane" is not permitted to log in', False),
    ],
)
def test_on_postgresql(text: str, is_advised: bool) -> None:
    refused = postgresql.translated(psycopg.OperationalError(FAILED + text))
    assert isinstance(refused, NotAdmitted)
    assert (MAKES_ROLES in str(refused)) is is_advised
