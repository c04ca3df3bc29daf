"""The account that docs/SCALING.md makes for KEDA: it sees how many effects there are, and can do nothing to them."""

import json
import re
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker

from coordinator.runtime.addresses import parse_address
from coordinator.transports.rabbitmq.topology import effects_queue_arguments
from tests.support.kubernetes import of_kind, values_of
from tests.support.managed_rabbitmq import ManagedRabbitMQ
from tests.support.rabbitmqctl import control_environment, control_program
from tests.support.system import wait_until

# It has a broker of its own.
pytestmark = [pytest.mark.xdist_group("broker_accounts"), pytest.mark.doors]

SCALING = Path(__file__).parents[2] / "docs" / "SCALING.md"
EFFECTS = 3


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManagedRabbitMQ]:
    made = ManagedRabbitMQ(tmp_path_factory.mktemp("broker"))
    made.start()
    lines = re.findall(r"^ +(rabbitmqctl .* autoscaler .*)$", SCALING.read_text(), re.MULTILINE)
    script = "\n".join(lines).replace("rabbitmqctl ", f"{control_program()} --quiet ")
    subprocess.run(["sh", "-e"], input=script, env=control_environment(made), text=True, check=True, timeout=120)
    yield made
    made.kill()


def connected(broker: ManagedRabbitMQ, name: str, password: str) -> pika.BlockingConnection:
    credentials = pika.PlainCredentials(name, password)
    return pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", broker.port, credentials=credentials))


def test_it_sees_how_many_effects_there_are_and_does_nothing_to_them(broker: ManagedRabbitMQ) -> None:
    queue = of_kind("ScaledObject")["payments-effects"]["spec"]["triggers"][0]["metadata"]["queueName"]
    account = parse_address(values_of("autoscaler")["host"])
    assert account.user is not None
    pair = f"{account.user}:{account.plain_password}".encode()
    headers = {"Authorization": f"Basic {b64encode(pair).decode()}"}
    url = f"http://127.0.0.1:{broker.management_port}/api/queues/%2F/{queue}"

    def messages() -> int | None:
        with urlopen(Request(url, headers=headers), timeout=10) as answer:
            found = json.load(answer).get("messages")
            return None if found is None else int(found)

    with closing(connected(broker, "administrator", "administrator")) as connection:
        channel = connection.channel()
        channel.queue_declare(queue, durable=True, arguments=effects_queue_arguments(1 << 20))
        channel.confirm_delivery()
        for _ in range(EFFECTS):
            channel.basic_publish("", queue, b"{}")
        # What a worker holds counts, too.
        assert channel.basic_get(queue)[0] is not None
        wait_until(lambda: messages() == EFFECTS, "the length", None, 60)

    taking = json.dumps({"count": 1, "ackmode": "ack_requeue_false", "encoding": "auto"}).encode()
    for request in (
        Request(f"{url}/get", taking, headers, method="POST"),
        Request(f"{url}/contents", headers=headers, method="DELETE"),
        Request(url, headers=headers, method="DELETE"),
    ):
        with pytest.raises(HTTPError) as refused:
            urlopen(request, timeout=10)
        assert refused.value.code in (401, 403)
        refused.value.close()
    with closing(connected(broker, account.user, account.plain_password or "")) as connection:
        sending = connection.channel()
        sending.confirm_delivery()
        with pytest.raises(ChannelClosedByBroker, match="ACCESS_REFUSED"):
            sending.basic_publish("", queue, b"{}")
        taken = connection.channel()
        with pytest.raises(ChannelClosedByBroker, match="ACCESS_REFUSED"):
            taken.basic_get(queue)
    assert messages() == EFFECTS
