"""What may cost a commit on MySQL or MariaDB that the lane has acknowledged, by the server's variables.

Each has variables that the other does not know; what is not there weakens nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Final

_IS_ON: Final = frozenset({"1", "ON"})
# `fast` of MariaDB does not sync, and MySQL's DETECT_ONLY finds what was half written, and cannot restore it.
_IS_RESTORED: Final = _IS_ON | {"DETECT_AND_RECOVER"}
_DOES_NOT_SYNC: Final = frozenset({"NOSYNC", "LITTLESYNC", "O_DIRECT_NO_FSYNC"})
# MySQL says source and replica since 8.0.26; MariaDB has the old words.
_WORDS: Final = (("source", "replica"), ("master", "slave"))

VARIABLES: Final = (
    "innodb_flush_log_at_trx_commit",
    "innodb_doublewrite",
    "innodb_flush_method",
    "log_bin",
    "sync_binlog",
    "wsrep_on",
    *(
        f"rpl_semi_sync_{primary}_{name}"
        for primary, standby in _WORDS
        for name in ("enabled", "timeout", f"wait_no_{standby}", "wait_point")
    ),
)
STATUS: Final = ("Innodb_redo_log_enabled", "wsrep_cluster_size")


def losses(variables: Mapping[str, str], status: Mapping[str, str]) -> list[str]:
    """Why commits may be lost with the machine's power, if they may be."""
    known = {name.lower(): value.upper() for name, value in variables.items()}
    flush = known.get("innodb_flush_log_at_trx_commit")
    problems = []
    if flush != "1":
        problems.append(f"innodb_flush_log_at_trx_commit is {flush}, not 1")
    if known.get("innodb_doublewrite", "ON") not in _IS_RESTORED:
        problems.append(
            f"innodb_doublewrite is {known['innodb_doublewrite']}: a page that was half written is not restored"
        )
    if known.get("innodb_flush_method") in _DOES_NOT_SYNC:
        problems.append(f"innodb_flush_method is {known['innodb_flush_method']}")
    if known.get("log_bin") in _IS_ON and known.get("sync_binlog") != "1":
        # After a crash the server rolls back what it does not find in its binary log.
        problems.append(f"there is a binary log, and sync_binlog is {known.get('sync_binlog')}, not 1")
    if any(name.lower() == "innodb_redo_log_enabled" and value.upper() == "OFF" for name, value in status.items()):
        problems.append("the redo log is off (ALTER INSTANCE ENABLE INNODB REDO_LOG)")
    return problems


def warnings(variables: Mapping[str, str], status: Mapping[str, str]) -> Sequence[str]:
    """Why commits may be lost where another server takes over, though they are meant to be there, too."""
    known = {name.lower(): value.upper() for name, value in variables.items()}
    found = []
    if known.get("wsrep_on") in _IS_ON and status.get("wsrep_cluster_size") == "1":
        found.append("this node is alone in its Galera cluster: a commit is on no other one (wsrep_cluster_size is 1)")
    for primary, standby in _WORDS:
        prefix = f"rpl_semi_sync_{primary}"
        if known.get(f"{prefix}_enabled") not in _IS_ON:
            continue
        found.append(
            f"with semi-synchronous replication a commit goes on without a replica after {prefix}_timeout "
            f"({known.get(f'{prefix}_timeout')} ms): a replica that takes over then lacks it"
        )
        if known.get(f"{prefix}_wait_no_{standby}") not in _IS_ON:
            found.append(f"{prefix}_wait_no_{standby} is off: with no replica connected a commit does not wait at all")
        if known.get(f"{prefix}_wait_point", "AFTER_SYNC") != "AFTER_SYNC":
            found.append(
                f"{prefix}_wait_point is {known[f'{prefix}_wait_point']}: readers see a commit before a replica has it"
            )
    return found
