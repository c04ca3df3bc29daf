"""What a server's variables say of its commits, in the words of every version of MySQL and MariaDB."""

import pytest

from coordinator.stores.mysql.durability import losses, warnings

DURABLE = {
    "innodb_flush_log_at_trx_commit": "1",
    "innodb_doublewrite": "ON",
    "innodb_flush_method": "O_DIRECT",
    "log_bin": "ON",
    "sync_binlog": "1",
}
MARIADB = {"innodb_flush_log_at_trx_commit": "1", "innodb_doublewrite": "1", "log_bin": "OFF", "sync_binlog": "0"}


@pytest.mark.parametrize(
    "variables", [DURABLE, MARIADB, DURABLE | {"innodb_doublewrite": "DETECT_AND_RECOVER"}, DURABLE | {"log_bin": "0"}]
)
def test_a_server_that_keeps_its_commits_is_taken(variables: dict[str, str]) -> None:
    assert losses(variables, {"Innodb_redo_log_enabled": "ON"}) == []
    assert warnings(variables, {}) == []


@pytest.mark.parametrize(
    ("weakness", "named"),
    [
        ({"innodb_flush_log_at_trx_commit": "0"}, "innodb_flush_log_at_trx_commit"),
        ({"innodb_flush_log_at_trx_commit": "3"}, "innodb_flush_log_at_trx_commit"),
        ({"innodb_doublewrite": "0"}, "innodb_doublewrite"),
        ({"innodb_doublewrite": "OFF"}, "innodb_doublewrite"),
        ({"innodb_doublewrite": "DETECT_ONLY"}, "innodb_doublewrite"),
        ({"innodb_doublewrite": "fast"}, "innodb_doublewrite"),
        ({"innodb_flush_method": "nosync"}, "innodb_flush_method"),
        ({"innodb_flush_method": "littlesync"}, "innodb_flush_method"),
        ({"innodb_flush_method": "O_DIRECT_NO_FSYNC"}, "innodb_flush_method"),
        ({"sync_binlog": "0"}, "sync_binlog"),
        ({"sync_binlog": "100"}, "sync_binlog"),
    ],
)
def test_a_server_that_may_lose_commits_is_named_by_its_variable(weakness: dict[str, str], named: str) -> None:
    (problem,) = losses(DURABLE | weakness, {})
    assert named in problem


def test_everything_that_is_wrong_is_named_at_once() -> None:
    problems = losses(DURABLE | {"innodb_doublewrite": "OFF", "sync_binlog": "0"}, {"Innodb_redo_log_enabled": "OFF"})
    assert len(problems) == 3


@pytest.mark.parametrize(("primary", "standby"), [("source", "replica"), ("master", "slave")])
def test_what_does_not_wait_for_a_replica_is_warned_of(primary: str, standby: str) -> None:
    prefix = f"rpl_semi_sync_{primary}"
    waiting = {
        f"{prefix}_enabled": "ON",
        f"{prefix}_timeout": "10000",
        f"{prefix}_wait_no_{standby}": "ON",
        f"{prefix}_wait_point": "AFTER_SYNC",
    }
    (timeout,) = warnings(DURABLE | waiting, {})
    assert f"{prefix}_timeout (10000 ms)" in timeout
    weak = {f"{prefix}_wait_no_{standby}": "OFF", f"{prefix}_wait_point": "AFTER_COMMIT"}
    assert len(warnings(DURABLE | waiting | weak, {})) == 3
    assert warnings(DURABLE | waiting | weak | {f"{prefix}_enabled": "OFF"}, {}) == []
    assert losses(DURABLE | waiting | weak, {}) == []


def test_a_node_that_is_alone_in_its_cluster_is_warned_of() -> None:
    node = DURABLE | {"wsrep_on": "ON"}
    (alone,) = warnings(node, {"wsrep_cluster_size": "1"})
    assert "wsrep_cluster_size is 1" in alone
    assert warnings(node, {"wsrep_cluster_size": "3"}) == []
    assert warnings(DURABLE | {"wsrep_on": "OFF"}, {"wsrep_cluster_size": "1"}) == []
