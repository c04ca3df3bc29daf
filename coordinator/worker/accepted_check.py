"""The commands that a process has accepted for a lane without a broker, and has left beside the lane's database."""

from pathlib import Path

from coordinator.service.errors import ConfigurationError
from coordinator.stores.admin import LaneAdmin
from coordinator.transports.inprocess.journal import journal_beside, waiting_beside


def check_nothing_waits(database: Path, admin: LaneAdmin) -> None:
    """See that nobody's accepted commands wait beside this file: whoever has the lane by a broker would pass them over.

    Raises ConfigurationError, also where their process runs; and StoreError.
    """
    # A killed process leaves some that the log has.
    waiting = waiting_beside(database, lambda message: admin.find(message.command_id or "") is not None)
    if waiting:
        raise ConfigurationError(
            f"{waiting} accepted commands wait in {journal_beside(database)} for the process that ran the lane without "
            "a broker: start it once more, without AMQP_URL and BROKER_URL, and stop it when they are applied. Where "
            "the log does not go back to that process any more (`coordinator log prune`), they may be applied already, "
            "and would be once more: move the file away then"
        )
