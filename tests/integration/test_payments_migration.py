"""Payments that a release before this one opened are still there, and have no life at a provider."""

from alembic import command
from sqlalchemy import text

from coordinator.migrate import alembic_config
from shared.payments import SERVICE
from shared.payments.model import Payment
from tests.support.databases import FreshDatabases, sql_engine

ROW = """
INSERT INTO payments (id, user_id, amount, currency, status, version, created_at)
VALUES (1, 7, 100, 'EUR', 'pending', 1, '2026-01-02 03:04:05.678')
"""


def test_payments_of_the_release_before_are_pending_and_untouched(databases: FreshDatabases) -> None:
    engine = sql_engine(databases.environment()["PAYMENTS_DATABASE_URL"])
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
