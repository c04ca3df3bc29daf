"""RabbitMQ's management, which tells of queues what AMQP does not say."""

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from msgspec import ValidationError, convert

from coordinator.runtime.addresses import parse_address
from coordinator.runtime.settings import BrokerSettings, load
from coordinator.service.errors import ConfigurationError

if TYPE_CHECKING:
    from coordinator.accounts.management import Management

T = TypeVar("T")


class Managed(NamedTuple):
    """The management of a broker, and the vhost whose queues are ours."""

    server: "Management"
    vhost: str


def management_of(broker: BrokerSettings) -> Managed | None:
    """None where RABBITMQ_ADMIN_URL is not set, or it is no RabbitMQ. Raises ConfigurationError."""
    # Only who has set it needs what speaks to it.
    from coordinator.accounts.management import BrokerAdminSettings, open_management  # noqa: PLC0415

    url = load(BrokerAdminSettings).admin_url
    if url is None or not broker.is_rabbitmq:
        return None
    return Managed(open_management(url), parse_address(broker.url).database or "/")


def told_as(told: Any, kind: type[T]) -> T:
    """What the management says, as this type. Raises ConfigurationError for what no RabbitMQ says."""
    try:
        return convert(told, kind)
    except ValidationError as error:
        raise ConfigurationError(f"what RABBITMQ_ADMIN_URL names is no management of RabbitMQ's: {error}") from None
