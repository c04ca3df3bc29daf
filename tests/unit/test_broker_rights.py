"""What an account of RabbitMQ lacks is named, and how to come by it."""

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker

from coordinator.transports.rabbitmq.errors import refused


@pytest.mark.parametrize(("queue", "is_of_outcomes"), [("replies.writes.7f", True), ("writes.seats", False)])
def test_who_may_not_have_a_queue_of_outcomes_is_told_of_the_name_that_his_account_may(
    queue: str, *, is_of_outcomes: bool
) -> None:
    error = ChannelClosedByBroker(403, f"ACCESS_REFUSED - access to queue '{queue}' in vhost '/' refused for user 'u'")
    said = str(refused(pika.ConnectionParameters(), error, "queue_declare"))
    assert f"needs the right to configure queue {queue} in vhost '/'" in said
    assert "rabbitmqctl set_permissions gives it" in said
    assert ('name="gateway.SERVICE"' in said) is is_of_outcomes
    assert ("`coordinator broker-accounts --gateway NAME`" in said) is is_of_outcomes
