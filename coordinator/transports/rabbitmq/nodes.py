"""Which node of the broker a connection is made to: any that takes it. They are tried in random order, each once.

So connections spread over a cluster, and those of a node that has died find another one at once.
"""

import random
from collections.abc import Callable, Iterator, Sequence

import pika

from coordinator.service.errors import BrokerUnavailable, ConfigurationError

_Order = Callable[[Sequence[pika.ConnectionParameters]], Sequence[pika.ConnectionParameters]]


def _shuffled(nodes: Sequence[pika.ConnectionParameters]) -> Sequence[pika.ConnectionParameters]:
    return random.sample(nodes, len(nodes))


class NodesInTurn:
    """The nodes to try for one connection. Who tries them says of each why it was not taken."""

    def __init__(self, nodes: Sequence[pika.ConnectionParameters], order: _Order = _shuffled) -> None:
        self._nodes = nodes
        self._order = order
        self._refusals: dict[int, Exception] = {}

    def __iter__(self) -> Iterator[pika.ConnectionParameters]:
        return iter(self._order(self._nodes))

    def refused(self, node: pika.ConnectionParameters, error: Exception) -> None:
        """This node did not take the connection."""
        self._refusals[id(node)] = error

    @property
    def refusal(self) -> Exception:
        """Why none of them did: a ConfigurationError where all of them refuse for good, else BrokerUnavailable.

        It names them in the order of the address, so that an outage that lasts has one reason.
        """
        refusals = [self._refusals[id(node)] for node in self._nodes]
        if len(refusals) == 1 or all(isinstance(each, ConfigurationError) for each in refusals):
            return refusals[0]
        return BrokerUnavailable("; ".join(map(str, refusals)))
