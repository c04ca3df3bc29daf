"""`coordinator queue delete`: so that a queue can be declared again with another limit."""

import click

from coordinator.arguments import LANE
from coordinator.operate.broker import broker
from coordinator.operate.output import CommandRefused, json_option, print_json, refusing
from coordinator.registry import registry
from coordinator.runtime.settings import BrokerSettings, load
from coordinator.service.outside_calls import effects_key


@click.group("queue")
def queue_group() -> None:
    """The queues of lanes and of effects, in RabbitMQ."""


@queue_group.command()
@click.argument("lane", type=LANE)
@click.option("--effects", "is_of_effects", is_flag=True, help="The queue of LANE's effects, and not its own.")
@json_option
@refusing
def delete(lane: str, *, is_of_effects: bool, as_json: bool) -> None:
    """Delete the queue of LANE if it is empty and nobody consumes it, so that its coordinator declares it again.

    What is in a queue is confirmed, and nowhere else. RabbitMQ itself looks at neither: of quorum queues its own
    conditions (if-empty, if-unused) are not kept. Publishers are cut off before the last look, so that nothing arrives
    after it. AMQP_URL must be that of a coordinator, which may declare and delete. Exit status 1: it stays as it was.
    """
    service = registry().service(lane)
    if is_of_effects and service.effects is None:
        raise click.UsageError(f"{lane} has no effects")
    key = effects_key(lane) if is_of_effects else lane
    with broker(load(BrokerSettings)) as connected:
        problem = connected.delete_unused(key)
    if problem is not None:
        raise CommandRefused(problem)
    if as_json:
        print_json({"lane": lane, "key": key, "deleted": True})
    else:
        click.echo(f"the queue of {key} was empty and is deleted: start its processes, which declare it")
