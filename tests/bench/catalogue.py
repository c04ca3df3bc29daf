"""Which rows there are."""

from collections.abc import Iterator
from typing import Any

from tests.bench.rows import Row
from tests.bench.service import LANE_BIG_LOG, LANE_EMPTY_LOG, LANE_WITH_RULES, LANES
from tests.bench.workloads import Workload

IN_FLIGHT = 2000
"""Commands that the lane's client has under way in a closed loop. Other callers have a connection each."""

HOT = Workload("hot-row")
SPREAD = Workload("spread")
SKEWS = (0.0, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
SHORT_SKEWS = (0.0, 1.0, 2.0)
EVERY_WAY_SKEWS = (0.0, 1.0, 1.5, 2.0)
"""Those at which all alternatives are measured. The others are for the curves of the fastest."""
LOADS = (250, 500, 1000, 2000, 4000, 8000, 16000)
SHORT_LOADS = (250, 4000)
TITLES = {
    "naive": "read, add, write (loses updates)",
    "for-update": "SELECT … FOR UPDATE",
    "for-update-pipelined": "SELECT … FOR UPDATE, pipelined",
    "for-update-keyed": "SELECT … FOR UPDATE + idempotency key",
    "atomic": "atomic UPDATE",
    "optimistic": "optimistic version, retry",
    "serializable": "SERIALIZABLE, retry",
    "redis-lock": "Redis lock",
    "batching": "batching from 4 connections",
    "batching-keyed": "batching + idempotency keys",
}
_LANE_TITLE = f"the lane, {IN_FLIGHT:,} commands under way"


def rows() -> list[Row]:
    """All of them, in the order of the report."""
    return [
        *_hot_row(),
        *_transfers(),
        *_creates_and_reservations(),
        *_other_databases(),
        *_one_client(),
        *_http(),
        *_durable(),
        *_access(),
        *_traces(),
        *_lane_alone(),
        *_loads(),
        *_growth(),
    ]


def clients_text(number: int) -> str:
    return "1 client" if number == 1 else f"{number:,} clients"


def _lane(section: str, workload: Workload, database: str = "postgresql", **changes: Any) -> Row:
    fields: dict[str, Any] = {
        "key": f"{section}/lane",
        "title": _LANE_TITLE,
        "concurrency": IN_FLIGHT,
        "lane": LANES[database],
    } | changes
    return Row(section=section, method="lane", workload=workload, database=database, **fields)


def _direct(section: str, workload: Workload, method: str, **changes: Any) -> Row:
    concurrency = changes.get("concurrency", 32)
    fields: dict[str, Any] = {
        "key": f"{section}/{method}-{concurrency}",
        "title": f"{TITLES[method]}, {clients_text(concurrency)}",
        "concurrency": concurrency,
        "may_lose": method == "naive",
    } | changes
    return Row(section=section, method=f"pg-{method}", workload=workload, **fields)


def _batching(section: str, workload: Workload, method: str = "batching", **changes: Any) -> Row:
    title = f"{TITLES[method]}, {IN_FLIGHT:,} callers"
    return _direct(section, workload, method, concurrency=IN_FLIGHT, title=title, **changes)


def _pgbench(section: str, workload: Workload, script: str, concurrency: int, **changes: Any) -> Row:
    return Row(
        key=f"{section}/pgbench-{script}-{concurrency}",
        section=section,
        title=f"{TITLES[script]}, {clients_text(concurrency)} in C (pgbench)",
        method=f"pgbench:{script}",
        workload=workload,
        concurrency=concurrency,
        is_python=False,
        **changes,
    )


def _queued(section: str, worker: str, title: str) -> Row:
    return Row(
        key=f"{section}/{worker}",
        section=section,
        title=title,
        method=f"queue:{worker}",
        workload=HOT,
        concurrency=100,
        worker=worker,
        note="100 tasks under way; the client is told nothing of the outcome",
    )


def _hot_row() -> Iterator[Row]:
    section = "hot-row"
    yield _lane(section, HOT)
    yield _lane(section, HOT, key=f"{section}/redis-lane", title=f"{_LANE_TITLE}, through Redis", is_on_redis=True)
    for method in ("for-update", "for-update-keyed", "atomic", "optimistic", "serializable"):
        yield _direct(section, HOT, method)
    yield _direct(section, HOT, "for-update-pipelined", tier="full")
    yield _direct(section, HOT, "redis-lock")
    yield _direct(section, HOT, "naive")
    yield _batching(section, HOT)
    yield _batching(section, HOT, "batching-keyed")
    yield _queued(section, "aio-pika", "one-by-one consumer (aio-pika)")
    yield _queued(section, "celery", "Celery, one worker")
    yield _queued(section, "procrastinate", "Procrastinate, lock=")
    for concurrency in (8, 32):
        for script in ("for-update", "atomic"):
            tier = "short" if (script, concurrency) in {("for-update", 32), ("atomic", 8)} else "full"
            yield _pgbench(section, HOT, script, concurrency, tier=tier)
    for concurrency in (1, 8):
        for method in ("for-update", "atomic"):
            yield _direct(section, HOT, method, concurrency=concurrency, tier="full")


def _transfers() -> Iterator[Row]:
    for skew in SKEWS:
        section, workload = f"transfer-{skew:g}", Workload("transfer", skew)
        tier = "short" if skew in SHORT_SKEWS else "full"
        only_full: dict[str, Any] = {"tier": "full"}
        yield _lane(section, workload, tier=tier)
        # Of what locks, these are the fastest where there is any skew, in Python and in C.
        yield _direct(section, workload, "atomic", tier=tier)
        yield _batching(section, workload, tier=tier if skew else "full")
        yield _pgbench(section, workload, "atomic", 8, tier=tier)
        yield _direct(section, workload, "for-update", **only_full)
        if skew not in EVERY_WAY_SKEWS:
            continue
        for script, concurrency in (("for-update", 32), ("for-update", 8), ("atomic", 32)):
            yield _pgbench(section, workload, script, concurrency, **only_full)
        for method in ("for-update-pipelined", "optimistic", "serializable"):
            yield _direct(section, workload, method, **only_full)


def _creates_and_reservations() -> Iterator[Row]:
    create, reserve = Workload("create"), Workload("reserve")
    yield _lane("create", create)
    yield _direct("create", create, "for-update", title="counter row, 32 clients")
    yield _lane("reserve", reserve)
    yield _direct("reserve", reserve, "atomic", title="UPDATE … WHERE left_over >= ?, 32 clients")
    yield _direct("reserve", reserve, "for-update", tier="full")


def _other_databases() -> Iterator[Row]:
    kinds = (HOT, Workload("transfer", 1.0), Workload("create"), Workload("reserve"))
    for database, prefix in (("mariadb", "my"), ("mongodb", "mongo")):
        for workload in kinds:
            section = f"{database}-{workload.kind}"
            tier = "short" if workload.kind == "hot-row" else "full"
            yield _lane(section, workload, database, tier=tier)
            for method, title in (("transaction", "transaction with retry"), ("atomic", "atomic update")):
                if method == "atomic" and (
                    workload.kind == "create" or (database, workload.kind) == ("mongodb", "transfer")
                ):
                    continue  # nothing atomic does it: it takes two documents
                # The more writers of one document there are, the less the stand-in for MongoDB commits.
                clients = {"transaction": 8, "atomic": 1}[method] if database == "mongodb" else 32
                yield Row(
                    key=f"{section}/{method}",
                    section=section,
                    title=f"{title}, {clients_text(clients)}",
                    method=f"{prefix}-{method}",
                    workload=workload,
                    database=database,
                    concurrency=clients,
                    tier=tier,
                )


def _one_client() -> Iterator[Row]:
    section = "one-client"
    yield _lane(section, SPREAD, concurrency=1, title="the lane, one client waits for each")
    for method in ("for-update", "atomic"):
        yield _direct(section, SPREAD, method, concurrency=1, title=f"{TITLES[method]}, one client")


def _http() -> Iterator[Row]:
    section = "http"
    for gateways in (1, 2):
        for mode, title in (("lane", "lane"), ("for-update", TITLES["for-update"])):
            several, concurrency = gateways > 1, 64 * gateways
            yield Row(
                key=f"{section}/{mode}" + (f"-{gateways}-gateways" if several else ""),
                section=section,
                title=f"{f'{gateways} gateways' if several else 'gateway'} → {title}, {concurrency} connections",
                method="http",
                workload=HOT,
                lane=LANES["postgresql"] if mode == "lane" else None,
                concurrency=concurrency,
                gateways=gateways,
                gateway_mode=mode,
                tier="full" if several else "short",
            )


def _durable() -> Iterator[Row]:
    """What others use for durable writes, in the section of the gateways: one load generator asks them all."""
    for mode, title, tier in (
        ("restate", "Restate, a virtual object an account", "short"),
        ("dbos", "DBOS, a workflow a request", "short"),
        ("dbos-transaction", "DBOS, the same by its data source", "full"),
    ):
        yield Row(
            tier=tier,
            key=f"http/{mode}",
            section="http",
            title=f"{title}, 64 connections",
            method="http",
            workload=HOT,
            concurrency=64,
            gateways=1,
            gateway_mode=mode,
        )


def _access() -> Iterator[Row]:
    section = "access"
    for key, title, lane, mode in (
        ("open", "everybody may", LANES["postgresql"], "lane"),
        ("tokens", "JSON Web Tokens of 500 principals, and a rule that reads the row", LANE_WITH_RULES, "tokens"),
    ):
        yield Row(
            key=f"{section}/{key}",
            section=section,
            title=title,
            method="http",
            workload=HOT,
            lane=lane,
            concurrency=64,
            gateways=1,
            gateway_mode=mode,
            times=2,
        )


def _traces() -> Iterator[Row]:
    section = "traces"
    for key, title, share in (
        ("off", "no collector", None),
        ("tenth", "spans about a tenth of the requests and their commands, exported", 0.1),
        ("all", "spans about every request and every command, exported", 1.0),
    ):
        yield Row(
            key=f"{section}/{key}",
            section=section,
            title=title,
            method="http",
            workload=HOT,
            lane=LANES["postgresql"],
            concurrency=64,
            gateways=1,
            gateway_mode="lane",
            traced_share=share,
            times=2,
        )


def _lane_alone() -> Iterator[Row]:
    section = "lane-alone"
    shared: dict[str, Any] = {"section": section, "workload": HOT, "lane": LANE_EMPTY_LOG, "is_python": False}
    for batch in (256, 500, 1000):
        yield Row(
            key=f"{section}/lane-{batch}",
            title=f"the lane without a queue, batches of {batch}",
            method="lane-alone",
            batch=batch,
            tier="short" if batch == 500 else "full",
            **shared,
        )
    shared["lane"] = None
    for batch in (256, 500, 1000):
        for way in ("json", "unnest"):
            yield Row(
                key=f"{section}/ceiling-{way}-{batch}",
                title=f"one UPDATE + one INSERT ({way}) of {batch} log rows",
                method=f"ceiling:{way}",
                batch=batch,
                tier="short" if (way, batch) in {("json", 1000), ("unnest", 1000)} else "full",
                **shared,
            )


def _loads() -> Iterator[Row]:
    section = "load"
    for load in LOADS:
        tier = "short" if load in SHORT_LOADS else "full"
        changes: dict[str, Any] = {"rate": float(load), "tier": tier}
        yield _lane(section, HOT, key=f"{section}/lane-{load}", title=f"the lane at {load}/s", **changes)
        for method in ("for-update", "atomic"):
            own = changes | ({"tier": "full"} if method == "atomic" else {})
            title = f"{TITLES[method]}, 32 connections, at {load}/s"
            yield _direct(section, HOT, method, key=f"{section}/{method}-{load}", title=title, **own)


def _growth() -> Iterator[Row]:
    section = "growth"
    yield _lane(section, HOT, key=f"{section}/log-empty", title="log of this session only", lane=LANE_EMPTY_LOG)
    yield _lane(section, HOT, key=f"{section}/log-big", title="log with a past", lane=LANE_BIG_LOG)
    yield Row(
        key=f"{section}/backlog",
        section=section,
        title="a backlog, worked off by a lane that was away",
        method="backlog",
        workload=HOT,
        lane=LANE_EMPTY_LOG,
        concurrency=IN_FLIGHT,
        repeats=2,
    )
    for batch in (1, 10, 100, 500, 1000):
        yield _lane(
            section,
            HOT,
            key=f"{section}/batch-{batch}",
            title=f"LANE_BATCH_COMMANDS_MAX={batch}",
            lane_settings={"LANE_BATCH_COMMANDS_MAX": str(batch), "LANE_PREFETCH": str(max(1000, 2 * batch))},
            tier="full",
        )
    for clients in (2, 4):
        yield _lane(
            section,
            HOT,
            key=f"{section}/publishers-{clients}",
            title=f"{clients} publishing processes",
            clients=clients,
            tier="full",
        )
