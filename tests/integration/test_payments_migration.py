"""Payments that a release before this one opened are still there, and have no life at a provider."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import select, text, update

from coordinator.migrations.histories import alembic_config
from coordinator.migrations.migrate import migrate
from coordinator.runtime.addresses import parse_address
from coordinator.runtime.settings import DatabaseSettings
from coordinator.stores.kinds import kind_of
from shared.payments import SERVICE
from shared.payments.model import Payment, Refund, payments, refunds
from tests.support.databases import FreshDatabases, sql_engine

pytestmark = pytest.mark.upgrades

ROW = """
INSERT INTO payments (id, user_id, amount, currency, status, version, created_at)
VALUES (1, 7, 100, 'EUR', 'pending', 1, '2026-01-02 03:04:05.678')
"""


def test_payments_of_the_release_before_are_pending_and_untouched(databases: FreshDatabases) -> None:
    engine = sql_engine(databases.new("PAYMENTS_DATABASE_URL"))
    assert SERVICE.migrations is not None
    assert SERVICE.metadata is not None
    with engine.begin() as connection:
        config = alembic_config(connection, SERVICE.migrations, "payments_version", SERVICE.metadata)
        command.upgrade(config, "payments_0001")
        connection.execute(text(ROW))
        command.upgrade(config, "head")
        (row,) = connection.execute(text("SELECT * FROM payments")).mappings().all()
        payment = Payment(**row)
        assert (payment.status, payment.captured, payment.refunded) == ("pending", 0, 0)
        assert payment.updated_at == payment.created_at
        assert {payment.payment_method, payment.provider_id, payment.pending_action, payment.wanted} == {None}
        command.downgrade(config, "payments_0001")
        assert connection.execute(text("SELECT amount FROM payments")).scalars().all() == [100]
    engine.dispose()


REFUND = """
INSERT INTO refunds (id, payment_id, amount, status, created_at) VALUES (1, 1, 30, 'pending', '2026-01-02 03:04:05.678')
"""


def test_of_refunds_of_the_release_before_it_is_not_known_what_is_given_back_without_them(
    databases: FreshDatabases,
) -> None:
    engine = sql_engine(databases.new("PAYMENTS_DATABASE_URL"))
    assert SERVICE.migrations is not None
    assert SERVICE.metadata is not None
    with engine.begin() as connection:
        config = alembic_config(connection, SERVICE.migrations, "payments_version", SERVICE.metadata)
        command.upgrade(config, "payments_0003")
        connection.execute(text(REFUND))
        command.upgrade(config, "head")
        (row,) = connection.execute(select(refunds)).mappings().all()
        assert Refund(**row).refunded_without is None
        command.downgrade(config, "payments_0003")
        assert connection.execute(text("SELECT amount FROM refunds")).scalars().all() == [30]
    engine.dispose()


BEFORE = """
INSERT INTO payments (id, user_id, amount, currency, status, provider_id, captured, refunded, version, created_at,
    updated_at)
VALUES (1, 7, 100, 'EUR', 'captured', 'pi_1', 100, 30, 4, '2026-01-02 03:04:05.678', '2026-01-02 03:04:06.789')
"""


def _address_of(server: str, databases: FreshDatabases, folder: Path) -> str:
    if server == "SQLite":
        return f"sqlite:///{folder / 'payments.db'}"
    return databases.new({"MariaDB": "PAYMENTS_DATABASE_URL", "PostgreSQL": "USERS_DATABASE_URL"}[server])


@pytest.mark.parametrize("server", ["MariaDB", "PostgreSQL", "SQLite"])
def test_of_payments_of_the_release_before_no_operator_has_said_what_the_amounts_are(
    databases: FreshDatabases, tmp_path: Path, server: str
) -> None:
    engine = sql_engine(_address_of(server, databases, tmp_path))
    assert SERVICE.migrations is not None
    assert SERVICE.metadata is not None
    said_at = datetime(2026, 2, 3, 4, 5, 6, 789000, tzinfo=UTC)
    with engine.begin() as connection:
        config = alembic_config(connection, SERVICE.migrations, "payments_version", SERVICE.metadata)
        command.upgrade(config, "payments_0002")
        connection.execute(text(BEFORE))
        command.upgrade(config, "head")
        (row,) = connection.execute(select(payments)).mappings().all()
        payment = Payment(**row)
        assert (payment.captured, payment.refunded, payment.amounts_as_of) == (100, 30, None)
        connection.execute(update(payments).values(amounts_as_of=said_at))
        kept = connection.execute(select(payments.c.amounts_as_of)).scalar_one()
        assert kept.replace(tzinfo=UTC) == said_at
        command.downgrade(config, "payments_0002")
        assert connection.execute(text("SELECT refunded FROM payments")).scalars().all() == [30]
    engine.dispose()


@pytest.mark.parametrize("server", ["MariaDB", "PostgreSQL", "SQLite"])
def test_the_lane_finds_the_indexes_by_which_it_selects(databases: FreshDatabases, tmp_path: Path, server: str) -> None:
    url = _address_of(server, databases, tmp_path)
    migrate(SERVICE, DatabaseSettings(database_url=url))
    address = parse_address(url)
    store = kind_of(address).open_store(address, SERVICE)
    store.check(SERVICE.models, must_sync=False)
    store.close()
