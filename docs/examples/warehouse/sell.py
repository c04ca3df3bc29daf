"""The application's side: `python -m warehouse.sell 7 3`. Where the lane runs is a matter of settings."""

import os
import sys
from typing import TYPE_CHECKING

from coordinator import CoordinatorError
from coordinator.client import BlockingWrites
from coordinator.settings import BrokerSettings, load
from coordinator.writing import InProcessWrites, open_store

from .service import Product, Sell, warehouse

if TYPE_CHECKING:
    from coordinator.writing import RabbitWrites, RedisWrites


def connect() -> "InProcessWrites | RabbitWrites | RedisWrites":
    """Writes through the lane behind a broker, where one is named, and through a lane of this process otherwise."""
    if not {"AMQP_URL", "BROKER_URL"} & os.environ.keys():
        return InProcessWrites({"warehouse": open_store(os.environ["WAREHOUSE_DATABASE_URL"], warehouse)}, [warehouse])
    broker = load(BrokerSettings)
    # Each needs the client of its broker, and no other.
    if broker.url.startswith("redis"):
        from coordinator.writing import RedisWrites  # noqa: PLC0415

        return RedisWrites(broker, confirm_timeout_s=5, wait_s=10, in_flight_max=1000, log=None, name="gateway.shop")
    from coordinator.writing import RabbitWrites  # noqa: PLC0415

    return RabbitWrites(broker, confirm_timeout_s=5, wait_s=10, in_flight_max=1000, log=None, name="gateway.shop")


if __name__ == "__main__":
    try:
        with BlockingWrites(connect) as writes:
            sold = writes.execute(Sell(id=int(sys.argv[1]), quantity=int(sys.argv[2])), Product)
    except CoordinatorError as error:
        # CommandRejected, where the handler raised Rejected: too few are left. The others say that nobody answers, say.
        sys.exit(str(error))
    print(sold.value.stock)  # noqa: T201  # its output
