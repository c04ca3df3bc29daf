"""API keys in MongoDB."""

from datetime import datetime

from pymongo.client_session import ClientSession
from pymongo.errors import DuplicateKeyError

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
from coordinator.stores.lane_tables import ApiKey, IdempotencySecret
from coordinator.stores.mongodb.admin import MongoAdmin
from coordinator.stores.mongodb.documents import document_of, row_of_document


class MongoApiKeys(MongoAdmin):
    """Implements `ApiKeys`, on the connection of an operator's commands."""

    def connect(self) -> None:
        with self._translated():
            """It looks when it begins."""

    def every(self) -> list[ApiKey]:
        with self._translated():
            found = self._database[ApiKey.table].find({}).sort("_id", 1)
            return [row_of_document(ApiKey, document) for document in found]

    def add(self, key: ApiKey, act: OperatorAct | None = None) -> None:
        def transact(session: ClientSession) -> None:
            self._keep_act(session, act)
            keys.insert_one(document_of(key), session=session)

        keys = self._database[ApiKey.table]
        with self._translated():
            if keys.count_documents({}) >= KEYS_MAX:
                raise TooManyKeys
        self._in_transaction(transact)

    def revoke(self, key_id: str, now: datetime, by: str, act: OperatorAct | None = None) -> ApiKey | None:
        def transact(session: ClientSession) -> None:
            revoked = {"$set": {"revoked_at": now, "revoked_by": by}}
            if keys.update_one({"_id": key_id, "revoked_at": None}, revoked, session=session).modified_count:
                self._keep_act(session, act)

        keys = self._database[ApiKey.table]
        self._in_transaction(transact)
        with self._translated():
            document = keys.find_one({"_id": key_id})
        return None if document is None else row_of_document(ApiKey, document)

    def forget(self, subject: str, tenant: str | None, now: datetime, act: OperatorAct | None = None) -> int:
        def transact(session: ClientSession) -> int:
            found = keys.find({"subject": subject, "tenant": tenant}, session=session)
            ids = ended_ids([row_of_document(ApiKey, document) for document in found], now)
            changed = False
            for made in list(acts.find({"act": CREATE_ACT}, session=session)):
                if text := without_subject(made["details"], subject, tenant):
                    acts.update_one({"_id": made["_id"]}, {"$set": {"details": text}}, session=session)
                    changed = True
            if ids or changed:
                self._keep_act(session, act)
            for key_id in ids:
                keys.delete_one({"_id": key_id}, session=session)
            return len(ids)

        keys, acts = self._database[ApiKey.table], self._database[OperatorAct.table]
        return self._in_transaction(transact)

    def secrets(self) -> list[IdempotencySecret]:
        with self._translated():
            found = self._database[IdempotencySecret.table].find({}).sort("_id", 1)
            return [row_of_document(IdempotencySecret, document) for document in found]

    def add_secret(self, secret: IdempotencySecret, act: OperatorAct | None = None) -> None:
        def transact(session: ClientSession) -> None:
            try:
                self._database[IdempotencySecret.table].insert_one(document_of(secret), session=session)
            except DuplicateKeyError:
                raise SecretTaken from None
            self._keep_act(session, act)

        self._in_transaction(transact)

    def remove_secrets(self, below: int, act: OperatorAct | None = None) -> int:
        def transact(session: ClientSession) -> int:
            self._keep_act(session, act)
            secrets = self._database[IdempotencySecret.table]
            return secrets.delete_many({"_id": {"$lt": below}}, session=session).deleted_count

        return self._in_transaction(transact)

    def fingerprint_keys(self) -> list[FingerprintKey]:
        with self._translated():
            found = self._database[FingerprintKey.table].find({}).sort("_id", 1)
            return [row_of_document(FingerprintKey, document) for document in found]

    def add_fingerprint_key(self, key: FingerprintKey, act: OperatorAct) -> None:
        def transact(session: ClientSession) -> None:
            try:
                self._database[FingerprintKey.table].insert_one(document_of(key), session=session)
            except DuplicateKeyError:
                raise SecretTaken from None
            self._keep_act(session, act)

        self._changing(transact, key.made_at)
