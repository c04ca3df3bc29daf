"""The nodes of a Galera cluster: the hosts of an address, of which each takes writes, and what their sessions must be.

A commit on one node is ordered and certified on all of them before it returns, and applied on the others a little
later. Two transactions that changed the same row on two nodes cannot both commit: the later one in the order fails
(1213). So the fence of a lane, which writes its lease row, is good on every node, and only reads may be old elsewhere.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import pymysql
from msgspec import Struct
from pymysql.constants import CR

from coordinator.runtime.addresses import Host
from coordinator.stores.mysql.errors import lack, of_no_mysql

IS_MEMBER: Final = "SHOW SESSION VARIABLES WHERE Variable_name IN ('wsrep_on', 'wsrep_provider')"
STATUS: Final = "SHOW GLOBAL STATUS WHERE Variable_name IN ('wsrep_ready', 'wsrep_cluster_status')"
"""Answered by a node, too, that refuses everything else."""

CATCH_UP: Final = "SET SESSION wsrep_sync_wait = {}"
READS: Final = 1
"""What waits until this node has applied all that any node has committed: reads."""
ALL: Final = 7
"""The same of every statement that reads or changes rows."""

_NOT_READY: Final = 1047
_NO_MEMBER: Final = "it is no node of a Galera cluster (wsrep_on), which each of several hosts must be"
_AS_THEY_ARE: Final = "SET SESSION wsrep_dirty_reads = 0"
"""Or a node that was cut off would answer reads, and no read would wait."""


def _set_up_session(connection: "pymysql.Connection[Any]", *, must_be_member: bool, waits: int = 0) -> bool:
    """Have a new session refused where its node takes no writes. Returns whether the server is a node of a cluster.

    `must_be_member`: it is one of several hosts, and a server that has its rows for itself would take the lane's next
    commits beside the others'. `waits` is what waits, as in `READS`. Raises the driver's errors.
    """
    with connection.cursor() as cursor:
        cursor.execute(IS_MEMBER)
        if not is_member(cursor.fetchall()):
            if must_be_member:
                raise _refused(_NO_MEMBER)
            return False
        cursor.execute(STATUS)
        check_takes_writes(cursor.fetchall())
        for statement in session_of_member(waits):
            cursor.execute(statement)
    return True


def is_member(variables: Iterable[Sequence[str]]) -> bool:
    """By the answer to `IS_MEMBER`: a server that knows no Galera has no such variable. One without a provider is by
    itself though `wsrep_on` is ON, which is Percona XtraDB Cluster's default."""
    known = {name: value.upper() for name, value in variables}
    return known.get("wsrep_on") == "ON" and known.get("wsrep_provider") != "NONE"


def check_takes_writes(status: Iterable[Sequence[str]]) -> None:
    """Raise OperationalError by the answer to `STATUS`, unless the node is in the primary component, and ready."""
    known = {name: value for name, value in status}  # noqa: C416  # sequences of two, which drivers make
    if (state := known.get("wsrep_cluster_status")) != "Primary":
        raise _refused(f"its part of the Galera cluster has no majority (wsrep_cluster_status is {state})")
    if (ready := known.get("wsrep_ready")) != "ON":
        raise _refused(f"it is not ready to take part in the Galera cluster (wsrep_ready is {ready})")


def session_of_member(waits: int) -> Sequence[str]:
    """The statements that set the session of a node up. Where nothing need wait, the server's own setting stays."""
    return (_AS_THEY_ARE, CATCH_UP.format(waits)) if waits else (_AS_THEY_ARE,)


def _refused(reason: str) -> pymysql.err.OperationalError:
    """The error of a node that takes no writes, by the number that it would have itself."""
    return pymysql.err.OperationalError(_NOT_READY, reason)


class NodeConnection(Struct, frozen=True):
    """A connection, and which of the hosts took it."""

    connection: "pymysql.Connection[Any]"
    host: Mapping[str, Any]
    is_member: bool
    """Whether its server is a node of a Galera cluster."""
    passed_over: str
    """What those before it said; empty: none was before it."""

    @property
    def name(self) -> str:
        """The host and its port."""
        return _name(self.host)


def first_that_takes(
    hosts: Sequence[Mapping[str, Any]],
    connect: Callable[[Mapping[str, Any]], "pymysql.Connection[Any]"],
    *,
    waits: int = 0,
) -> NodeConnection:
    """A connection to the first of these hosts that takes writes; `waits` is what waits there, as in `READS`.

    `hosts` are the driver's arguments, of which `connect` gets one. Of one host its error is raised as it is. Of
    several the error says what each has said; where all refuse this account for good, it is the first one's.
    """
    errors: list[tuple[str, Exception]] = []
    for host in hosts:
        try:
            connection = connect(host)
            try:
                member = _set_up_session(connection, must_be_member=len(hosts) > 1, waits=waits)
            except BaseException:
                connection._force_close()  # type: ignore[attr-defined]  # noqa: SLF001  # says no goodbye
                raise
        except Exception as raised:  # noqa: BLE001  # of a server that is no MySQL it may be any
            error = of_no_mysql(raised)
            if len(hosts) == 1:
                raise error from (None if error is raised else raised)
            errors.append((_name(host), error))
        else:
            return NodeConnection(connection, host, member, _said(errors))
    first = errors[0][1]
    if all(lack(error) in ("login", "tls") for _, error in errors):
        raise first
    reason = f"no host takes the connection: {_said(errors)}"
    raise pymysql.err.OperationalError(CR.CR_CONN_HOST_ERROR, reason) from first


def _name(host: Mapping[str, Any]) -> str:
    return str(Host(host["host"], host["port"]))


def _said(errors: Sequence[tuple[str, Exception]]) -> str:
    return "; ".join(f"{host}: {' '.join(str(error).split())}" for host, error in errors)
