"""The accounts of RabbitMQ: one for each process of a system, with the least rights that it can work with.

Whoever may write to `writes.system` speaks as the system, so hardly anybody may.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

from msgspec import Struct

from coordinator.service.errors import ConfigurationError
from coordinator.service.outside_calls import EFFECTS_PREFIX
from coordinator.transports.rabbitmq.ingress.topology import ingress_name
from coordinator.transports.rabbitmq.topology import WRITES_EXCHANGE, queue_name

OPERATOR: Final = "operator"
PUBLISHER: Final = "public"
INGRESS: Final = "ingress"
PUBLISHER_CONNECTIONS_MAX: Final = 20
PUBLISHER_CHANNELS_MAX: Final = 100
NOTHING: Final = "^$"
_OF_OTHERS: Final = {"max-connections": PUBLISHER_CONNECTIONS_MAX, "max-channels": PUBLISHER_CHANNELS_MAX}


class BrokerRights(Struct, frozen=True, kw_only=True):
    """Regular expressions of names in one vhost, as RabbitMQ has them.

    `configure` is to declare and delete, `write` to publish to an exchange and to bind a queue, `read` to consume and
    to bind to an exchange.
    """

    configure: str = NOTHING
    write: str = NOTHING
    read: str = NOTHING


class BrokerAccount(Struct, frozen=True, kw_only=True):
    """An account, and whose it is. `limits` are those of RabbitMQ's `set_user_limits`."""

    name: str
    whose: str
    rights: BrokerRights
    limits: dict[str, int] = {}


class BrokerNames(Struct, frozen=True, kw_only=True):
    """The names of a system, from which those of its accounts, queues and exchanges are made."""

    lanes: Sequence[str]
    calling: Collection[str] = ()
    """The services among them that make calls to the outside."""
    gateways: Sequence[str] = ()
    system_gateways: Collection[str] = ()
    """Those among them that say something as the system: events of a provider, which they have verified."""
    together: Mapping[str, Sequence[str]] = {}
    """Processes that run several of the lanes, by names of their own."""
    outside: Sequence[str] = ()
    """Accounts of others, whose commands the ingress hands on (INGRESS_ACCOUNTS)."""

    @property
    def gateway_accounts(self) -> tuple[str, ...]:
        """Who is believed when it says who asks: the value of LANE_GATEWAY_ACCOUNTS."""
        return (*map(gateway_account, self.gateways), *((INGRESS,) if self.outside else ()))


def lane_account(lane: str) -> str:
    return f"{lane}_lane"


def lanes_account(name: str) -> str:
    return f"{name}_lanes"


def gateway_account(gateway: str) -> str:
    return f"{gateway}_gateway"


def effects_account(service: str) -> str:
    return f"{service}_effects"


def broker_accounts(names: BrokerNames) -> tuple[BrokerAccount, ...]:
    """All accounts of a system. Each lane, gateway and service with effects has one of its own: with it nobody takes
    the commands, effects or outcomes of another. A process with several lanes has one with the rights of each.

    Who binds queues of his own to an exchange may do so by any routing key: lanes and effect workers can get copies of
    what others are sent. Raises ConfigurationError where an outside account has the name of another one.
    """
    made = _accounts(names)
    counted = Counter(account.name for account in made)
    for account in names.outside:
        if counted[account] > 1:
            raise ConfigurationError(
                f"INGRESS_ACCOUNTS: {account} is an account of this system's: give the outside publisher another one"
            )
    return made


def _accounts(names: BrokerNames) -> tuple[BrokerAccount, ...]:
    of_lanes = {lane: _of_lane(lane, has_effects=lane in names.calling) for lane in names.lanes}
    return (
        *of_lanes.values(),
        *(_of_lanes(name, lanes, [of_lanes[lane].rights for lane in lanes]) for name, lanes in names.together.items()),
        *(_of_effects(service) for service in names.lanes if service in names.calling),
        *(_of_gateway(name, is_system=name in names.system_gateways) for name in names.gateways),
        BrokerAccount(
            name=OPERATOR,
            whose="the operator's commands: orders to the system exchange; asks how long queues are; reads marks",
            # Who asks about a queue needs a right to its name. That to write takes nothing out, and puts nothing in.
            rights=BrokerRights(
                configure=r"^replies\.operator\.",
                write=r"^(writes(\.(?!dead$).+)?|effects\..+)$",
                read=r"^(replies\.operator\.|writes\.[^.]+\.mark$)",
            ),
        ),
        BrokerAccount(
            name=PUBLISHER,
            whose="clients that publish by themselves: commands to the exchange for everybody, and outcomes by direct "
            "reply-to",
            rights=BrokerRights(write=_exactly(WRITES_EXCHANGE)),
            limits=_OF_OTHERS,
        ),
        *_of_ingress(names.outside, names.lanes),
    )


def _of_lane(lane: str, *, has_effects: bool) -> BrokerAccount:
    queues = rf"{re.escape(lane)}(\.(dead|mark))?"
    effects = rf"|{re.escape(EFFECTS_PREFIX + lane)}(\.dead)?" if has_effects else ""
    own = rf"^(writes(\.(system|dead|{queues}))?{effects})$"
    return BrokerAccount(
        name=lane_account(lane),
        whose=f"`coordinator run {lane}`: its queues; emitted commands to the system exchange; outcomes to "
        "whatever queue `reply_to` names",
        rights=BrokerRights(
            configure=own, write=rf"^(writes\.(system|dead|{queues}){effects}|amq\.default)$", read=own
        ),
    )


def _of_lanes(name: str, lanes: Sequence[str], rights: Sequence[BrokerRights]) -> BrokerAccount:
    return BrokerAccount(
        name=lanes_account(name),
        whose=f"`coordinator run {' '.join(lanes)}`: what each of these lanes may",
        rights=BrokerRights(
            configure=_any(each.configure for each in rights),
            write=_any(each.write for each in rights),
            read=_any(each.read for each in rights),
        ),
    )


def _of_effects(service: str) -> BrokerAccount:
    queues = rf"{re.escape(EFFECTS_PREFIX + service)}(\..+)?"
    own = rf"^(writes(\.(system|dead))?|{queues})$"
    return BrokerAccount(
        name=effects_account(service),
        whose=f"`coordinator effects {service}`: the queues of its effects; results to the system exchange",
        rights=BrokerRights(configure=own, write=rf"^(writes\.(system|dead)|{queues})$", read=own),
    )


def _of_gateway(gateway: str, *, is_system: bool) -> BrokerAccount:
    # The queue of its outcomes outlives a connection, so it has a name.
    replies = rf"^replies\.gateway\.{re.escape(gateway)}\."
    system = ", and what it has verified to the system exchange" if is_system else ""
    return BrokerAccount(
        name=gateway_account(gateway),
        whose=f"`coordinator gateway {gateway}`: commands to the exchange for everybody{system}; a queue for outcomes",
        rights=BrokerRights(
            configure=replies,
            write=r"^writes(\.system)?$" if is_system else _exactly(WRITES_EXCHANGE),
            read=replies,
        ),
    )


def _of_ingress(outside: Sequence[str], lanes: Sequence[str]) -> Iterator[BrokerAccount]:
    """Those of the ingress, and of whom it serves."""
    if not outside:
        return
    own = _one_of(map(ingress_name, outside))
    yield BrokerAccount(
        name=INGRESS,
        whose="`coordinator ingress`: the exchanges and queues of outside accounts; their commands to the exchange for "
        "everybody",
        # It asks how long lanes' queues are: as for operators, that right alone takes nothing out of one.
        rights=BrokerRights(
            configure=f"^{own}$",
            write=f"^({re.escape(WRITES_EXCHANGE)}|{own}|{_one_of(map(queue_name, lanes))})$",
            read=f"^{own}$",
        ),
    )
    for account in outside:
        yield BrokerAccount(
            name=account,
            whose="an outside publisher: commands to an exchange of its own, which the ingress hands on, and outcomes "
            "by direct reply-to",
            rights=BrokerRights(write=_exactly(ingress_name(account))),
            limits=_OF_OTHERS,
        )


def _one_of(names: Iterable[str]) -> str:
    return f"({'|'.join(map(re.escape, names))})"


def _any(patterns: Iterable[str]) -> str:
    """What one of them matches; each has its own `^` and `$`."""
    return "|".join(patterns)


def _exactly(name: str) -> str:
    return f"^{re.escape(name)}$"
