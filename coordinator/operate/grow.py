"""`coordinator grow`: the queues get a member on a node that has joined the cluster."""

import re
import shlex
from typing import Final

import click

from coordinator.arguments import TEXT
from coordinator.exemplified import Exemplified
from coordinator.operate.output import CommandRefused, refusing
from coordinator.runtime.addresses import parse_address
from coordinator.runtime.settings import BrokerSettings, load

_NODE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,254}@[A-Za-z0-9._-]{1,255}")
"""It begins with no `-`: what is printed would take it for an option."""
_QUEUES = r"^(writes|effects)\."
"""Of lanes and their effects: commands, dead letters, marks, and effects for later attempts. All are quorum queues."""


def _named(_context: click.Context, _parameter: click.Parameter, node: str) -> str:
    if not _NODE.fullmatch(node):
        raise click.BadParameter("it must be the name of a node as RabbitMQ has it, such as rabbit@host.")
    return node


@click.command(cls=Exemplified, example="grow rabbit@c")
@click.argument("node", type=TEXT, callback=_named)
@refusing
def grow(node: str) -> None:
    """Print what gives the queues of all lanes and effects a member on NODE, which has joined the cluster.

    A queue has members on the nodes that were there when it was declared, three at most, and gets no other by itself.
    The line runs on any node of the cluster: AMQP has no method for it, nor has the management of older releases. The
    vhost is that of AMQP_URL. Doing it again changes nothing.
    """
    broker = load(BrokerSettings)
    if not broker.is_rabbitmq:
        raise CommandRefused("only RabbitMQ's queues have members: Redis has replicas, which it makes itself")
    vhost = shlex.quote(f"^{_escaped(parse_address(broker.url).database or '/')}$")
    click.echo(f"rabbitmq-queues grow {shlex.quote(node)} all --vhost-pattern {vhost} --queue-pattern '{_QUEUES}'")


def _escaped(name: str) -> str:
    """A pattern of Erlang's that matches this name alone."""
    return "".join(each if each.isalnum() or each in "/_-" else f"\\{each}" for each in name)
