"""API keys in MongoDB."""

from datetime import datetime

from pymongo.errors import DuplicateKeyError

from coordinator.stores.api_keys import KEYS_MAX, SecretTaken, TooManyKeys
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

    def add(self, key: ApiKey) -> None:
        with self._translated():
            keys = self._database[ApiKey.table]
            if keys.count_documents({}) >= KEYS_MAX:
                raise TooManyKeys
            keys.insert_one(document_of(key))

    def revoke(self, key_id: str, now: datetime, by: str) -> ApiKey | None:
        with self._translated():
            keys = self._database[ApiKey.table]
            keys.update_one({"_id": key_id, "revoked_at": None}, {"$set": {"revoked_at": now, "revoked_by": by}})
            document = keys.find_one({"_id": key_id})
        return None if document is None else row_of_document(ApiKey, document)

    def secrets(self) -> list[IdempotencySecret]:
        with self._translated():
            found = self._database[IdempotencySecret.table].find({}).sort("_id", 1)
            return [row_of_document(IdempotencySecret, document) for document in found]

    def add_secret(self, secret: IdempotencySecret) -> None:
        with self._translated():
            try:
                self._database[IdempotencySecret.table].insert_one(document_of(secret))
            except DuplicateKeyError:
                raise SecretTaken from None

    def remove_secrets(self, below: int) -> int:
        with self._translated():
            return self._database[IdempotencySecret.table].delete_many({"_id": {"$lt": below}}).deleted_count
