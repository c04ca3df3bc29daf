"""`BlockingWrites` over RabbitMQ: many threads, and a broker that dies."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from coordinator.client import BlockingWrites, WriteOptions
from coordinator.dev.servers.server_set import ServerSet
from coordinator.runtime.settings import BrokerSettings
from coordinator.service.errors import BrokerUnavailable, CommandPending, Unavailable
from coordinator.transports.rabbitmq.rights import gateway_account
from coordinator.transports.rabbitmq.writes import RabbitWrites
from shared.users.commands import CreateUser, CreditUser
from shared.users.model import User
from tests.e2e.test_outages import query
from tests.support.accounts import as_account
from tests.support.callers import CALLER
from tests.support.servers import quorum_queues_are_noted
from tests.support.system import System, wait_until

THREADS = 50
WRITES = 20
WITHIN_S = 60.0


def writes_of(system: System, *, connect_timeout_s: float = 15.0, wait_s: float = 10.0) -> BlockingWrites:
    broker = BrokerSettings(url=as_account(system.environment["AMQP_URL"], gateway_account("users")), heartbeat_s=5)
    return BlockingWrites(
        lambda: RabbitWrites(
            broker, confirm_timeout_s=5, wait_s=wait_s, in_flight_max=1000, log=None, name="gateway.users"
        ),
        connect_timeout_s=connect_timeout_s,
    )


@pytest.fixture
def writes(system: System) -> Iterator[BlockingWrites]:
    system.prepare("users")
    system.start_coordinator("users")
    with writes_of(system) as writes:
        writes.execute(CreateUser(name="Ada", email="ada@example.org"), User)
        yield writes


class Crediting:
    """Threads that credit user 1, each write with a key and again until it has its outcome."""

    def __init__(self, writes: BlockingWrites, writes_each: int) -> None:
        self._writes = writes
        self._writes_each = writes_each
        self.settled = threading.Semaphore(0)
        self.refused = threading.Event()
        """Set once the broker was away for one of them."""
        self._threads = ThreadPoolExecutor(THREADS)
        self._ended = [self._threads.submit(self._credit, thread) for thread in range(THREADS)]

    def _credit(self, thread: int) -> list[int]:
        return [self._once(f"{thread}-{number}") for number in range(self._writes_each)]

    def _once(self, key: str) -> int:
        while True:
            try:
                written = self._writes.execute(
                    CreditUser(id=1, amount=1), User, WriteOptions(actor=CALLER, idempotency_key=key)
                )
            except BrokerUnavailable:
                self.refused.set()
                threading.Event().wait(0.05)
            except (CommandPending, Unavailable):
                pass
            else:
                self.settled.release()
                return written.value.credit

    def credits(self) -> list[int]:
        with self._threads:
            return sorted(credit for each in self._ended for credit in each.result(WITHIN_S))


def test_threads_at_once_write_each_once_and_in_one_order(system: System, writes: BlockingWrites) -> None:
    count = THREADS * WRITES
    assert Crediting(writes, WRITES).credits() == list(range(1, count + 1))
    logged = query(system.environment["USERS_DATABASE_URL"], "SELECT sequence FROM command_log ORDER BY sequence")
    assert [sequence for (sequence,) in logged] == list(range(1, count + 2))


@pytest.mark.faults
def test_a_broker_that_dies_is_an_error_and_loses_nothing(
    system: System, writes: BlockingWrites, native_servers: ServerSet
) -> None:
    wait_until(lambda: quorum_queues_are_noted(native_servers.rabbitmq), "the queue survives")
    crediting = Crediting(writes, WRITES)
    for _ in range(THREADS):
        assert crediting.settled.acquire(timeout=WITHIN_S)
    native_servers.rabbitmq.kill()
    try:
        assert crediting.refused.wait(WITHIN_S), "the kill came too late to prove anything"
        with pytest.raises(BrokerUnavailable, match="not connected within"), writes_of(system, connect_timeout_s=0.5):
            pytest.fail("there is no broker")
        with writes_of(system, connect_timeout_s=0) as without, pytest.raises(BrokerUnavailable):
            without.execute(CreditUser(id=1, amount=0), User, WriteOptions(actor=CALLER))
    finally:
        native_servers.rabbitmq.start()
    assert crediting.credits() == list(range(1, THREADS * WRITES + 1))


def test_a_command_that_is_not_settled_in_time_is_pending(system: System, writes: BlockingWrites) -> None:
    """And is settled all the same."""
    options = WriteOptions(actor=CALLER, idempotency_key="later")
    (coordinator,) = system.processes
    coordinator.pause()
    try:
        with pytest.raises(CommandPending), writes_of(system, wait_s=0.2) as hasty:
            hasty.execute(CreditUser(id=1, amount=5), User, options)
    finally:
        coordinator.resume()
    assert writes.execute(CreditUser(id=1, amount=5), User, options).value.credit == 5
