"""Reading rows, and the log of what became of commands."""

from coordinator.client.command_log import Asked, CommandLog, open_command_log
from coordinator.client.database import (
    READ_TIMEOUT_MS,
    check_reads,
    close_database,
    fetch,
    fetch_documents,
    open_database,
    read_page,
    reading,
)
from coordinator.client.recency import needs_recency
from coordinator.client.repository import Repository, behind, open_repository, table_of
from coordinator.service.errors import UnreadableRow
from coordinator.stores.kinds import Database
from coordinator.stores.mongodb.documents import Documents, row_of_document

__all__ = (
    "CommandLog",
    "Asked",
    "open_command_log",
    "Database",
    "Documents",
    "Repository",
    "open_repository",
    "table_of",
    "behind",
    "READ_TIMEOUT_MS",
    "open_database",
    "check_reads",
    "close_database",
    "fetch",
    "fetch_documents",
    "read_page",
    "needs_recency",
    "reading",
    "row_of_document",
    "UnreadableRow",
)
