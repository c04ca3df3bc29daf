"""How outcomes leave a lane on RabbitMQ: to the queues that those who wait have named."""

from collections.abc import Container, Sequence

from coordinator.lane.delivery import Reply
from coordinator.transports.not_sent import NotSent
from coordinator.transports.outcome_packs import messages_of
from coordinator.transports.rabbitmq.properties import outcome_properties
from coordinator.transports.rabbitmq.publisher import Publisher
from coordinator.transports.rabbitmq.topology import takes_outcomes


class Replies:
    """Used within the loop of its publisher."""

    def __init__(self, publisher: Publisher, not_sent: NotSent, named: Container[str] = ()) -> None:
        """`named` are the queues that a setting has."""
        self._publisher = publisher
        self._not_sent = not_sent
        self._named = named

    def send(self, replies: Sequence[Reply]) -> None:
        """Send outcomes once and without a confirm: a client that misses one finds it in the command log."""
        for message in messages_of(replies):
            properties = outcome_properties(message.correlation_id, is_pack=message.is_pack)
            reply_to = message.reply_to
            is_taken = takes_outcomes(reply_to, self._named)
            if not (is_taken and self._publisher.send(reply_to, properties, message.body)):
                self._not_sent.count(reply_to)
