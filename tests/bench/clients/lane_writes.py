"""The lane's client: commands published directly. The only place that uses the library's client of a broker."""

from collections.abc import Sequence
from contextlib import suppress

import msgspec

from coordinator.protocol.wire import CommandMessage
from coordinator.runtime.settings import BrokerSettings
from coordinator.service.errors import CommandPending, Unavailable
from coordinator.service.ids import new_command_id
from coordinator.transports.open import open_transport
from tests.bench.clients.load import Caller, Unknown
from tests.bench.clients.spec import Spec
from tests.bench.workloads import Operation

OUTCOME_WAIT_S = 30.0
CONFIRM_TIMEOUT_S = 30.0

_ARGUMENTS = {
    "hot-row": ("credit", ("id", "amount")),
    "spread": ("credit", ("id", "amount")),
    "transfer": ("transfer", ("payer", "payee", "amount")),
    "create": ("create", ("reference",)),
    "reserve": ("reserve", ("item", "quantity")),
}


def command_maker(lane: str, kind: str) -> "CommandMaker":
    """Makes command messages of operations."""
    name, fields = _ARGUMENTS[kind]
    return CommandMaker(f"{lane}.{name}", fields)


class CommandMaker:
    def __init__(self, command_type: str, fields: tuple[str, ...]) -> None:
        self._type = command_type
        self._fields = fields
        self._encode = msgspec.json.Encoder().encode

    def __call__(self, operation: Operation) -> CommandMessage:
        arguments = self._encode(dict(zip(self._fields, operation, strict=True)))
        return CommandMessage(command_id=new_command_id(), type=self._type, arguments=arguments)


class LaneClient:
    """Issues commands and waits for their outcomes."""

    def __init__(self, spec: Spec) -> None:
        self._lane = spec.target
        self._concurrency = spec.concurrency
        self._make = command_maker(spec.target, spec.workload.kind)
        self._is_filling = spec.total is not None
        self.retries = 0
        broker = BrokerSettings(url=spec.environment.get("BROKER_URL") or spec.environment["AMQP_URL"])
        self._writes = open_transport(broker).commands(
            f"bench-{spec.seed}",
            confirm_timeout_s=CONFIRM_TIMEOUT_S,
            wait_s=OUTCOME_WAIT_S,
            in_flight_max=spec.concurrency + 1,
            log=None,
        )

    async def open(self) -> None:
        await self._writes.start()
        await self._writes.wait_connected(20.0)

    def callers(self) -> Sequence[Caller]:
        return [self._enqueue if self._is_filling else self._issue] * self._concurrency

    async def close(self) -> None:
        await self._writes.close()

    async def _issue(self, operation: Operation) -> bool:
        message = self._make(operation)
        try:
            outcome = await self._writes.issue(self._lane, message, OUTCOME_WAIT_S)
        except (CommandPending, Unavailable) as error:
            raise Unknown(str(error)) from error
        if outcome.status in ("applied", "rejected"):
            return outcome.status == "applied"
        raise RuntimeError(f"{outcome.status}: {outcome.error}")

    async def _enqueue(self, operation: Operation) -> bool:
        """Return once the broker has it safe; nobody waits for the outcome."""
        with suppress(CommandPending):
            await self._writes.issue(self._lane, self._make(operation), 0)
        return True
