"""API keys in an SQL database."""

from datetime import datetime

import msgspec
from sqlalchemy import and_, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from coordinator.stores.api_keys import (
    CREATE_ACT,
    KEYS_MAX,
    SecretTaken,
    TooManyKeys,
    ended_ids,
    without_subject,
)
from coordinator.stores.audit_tables import OperatorAct
from coordinator.stores.fingerprint_keys import FingerprintKey
from coordinator.stores.lane_tables import ApiKey, IdempotencySecret, metadata
from coordinator.stores.row_makers import row_of_mapping
from coordinator.stores.sql.admin import SqlAdmin
from coordinator.stores.sql.admin_session import keep_act

_SECRETS = metadata.tables[IdempotencySecret.table]
_FINGERPRINT_KEYS = metadata.tables[FingerprintKey.table]
_ACTS = metadata.tables[OperatorAct.table]
_KEYS = metadata.tables[ApiKey.table]


class SqlApiKeys(SqlAdmin):
    """Implements `ApiKeys`, on the connection of an operator's commands."""

    def connect(self) -> None:
        with self._transaction():
            """It looks when it begins."""

    def every(self) -> list[ApiKey]:
        with self._transaction() as connection:
            rows = connection.execute(select(_KEYS).order_by(_KEYS.c.id)).mappings().all()
        return [row_of_mapping(ApiKey, row) for row in rows]

    def add(self, key: ApiKey, act: OperatorAct | None = None) -> None:
        with self._change() as connection:
            if connection.execute(select(func.count()).select_from(_KEYS)).scalar_one() >= KEYS_MAX:
                raise TooManyKeys
            self._check_open(connection)
            keep_act(connection, act)
            connection.execute(insert(_KEYS).values({name: getattr(key, name) for name in key.__struct_fields__}))

    def revoke(self, key_id: str, now: datetime, by: str, act: OperatorAct | None = None) -> ApiKey | None:
        open_now = _KEYS.c.revoked_at.is_(None)
        with self._change() as connection:
            ended = connection.execute(
                update(_KEYS).where(_KEYS.c.id == key_id, open_now).values(revoked_at=now, revoked_by=by)
            )
            if ended.rowcount:
                self._check_open(connection)
                keep_act(connection, act)
            row = connection.execute(select(_KEYS).where(_KEYS.c.id == key_id)).mappings().first()
        return None if row is None else row_of_mapping(ApiKey, row)

    def forget(self, subject: str, tenant: str | None, now: datetime, act: OperatorAct | None = None) -> int:
        is_his = and_(_KEYS.c.subject == subject, _KEYS.c.tenant == tenant if tenant else _KEYS.c.tenant.is_(None))
        with self._change() as connection:
            found = connection.execute(select(_KEYS).where(is_his)).mappings().all()
            # A database may take texts for equal that are not.
            keys = [key for row in found if (key := row_of_mapping(ApiKey, row)).subject == subject]
            ids = ended_ids([key for key in keys if key.tenant == tenant], now)
            made = connection.execute(select(_ACTS.c.id, _ACTS.c.details).where(_ACTS.c.act == CREATE_ACT)).all()
            changed = [
                (number, text) for number, details in made if (text := without_subject(details, subject, tenant))
            ]
            for number, text in changed:
                connection.execute(update(_ACTS).where(_ACTS.c.id == number).values(details=text))
            if ids or changed:
                self._check_open(connection, removes=True)
                keep_act(connection, act)
            for key_id in ids:
                connection.execute(delete(_KEYS).where(_KEYS.c.id == key_id))
        return len(ids)

    def secrets(self) -> list[IdempotencySecret]:
        with self._transaction() as connection:
            rows = connection.execute(select(_SECRETS).order_by(_SECRETS.c.id)).mappings().all()
        return [row_of_mapping(IdempotencySecret, row) for row in rows]

    def add_secret(self, secret: IdempotencySecret, act: OperatorAct | None = None) -> None:
        with self._change() as connection:
            try:
                connection.execute(insert(_SECRETS).values(msgspec.structs.asdict(secret)))
            except IntegrityError:
                raise SecretTaken from None
            self._check_open(connection)
            keep_act(connection, act)

    def remove_secrets(self, below: int, act: OperatorAct | None = None) -> int:
        with self._change() as connection:
            self._check_open(connection)
            keep_act(connection, act)
            return connection.execute(delete(_SECRETS).where(_SECRETS.c.id < below)).rowcount

    def fingerprint_keys(self) -> list[FingerprintKey]:
        with self._transaction() as connection:
            rows = connection.execute(select(_FINGERPRINT_KEYS).order_by(_FINGERPRINT_KEYS.c.id)).mappings().all()
        return [row_of_mapping(FingerprintKey, row) for row in rows]

    def add_fingerprint_key(self, key: FingerprintKey, act: OperatorAct) -> None:
        with self._changing(key.made_at, act) as connection:
            try:
                connection.execute(insert(_FINGERPRINT_KEYS).values(msgspec.structs.asdict(key)))
            except IntegrityError:
                raise SecretTaken from None
