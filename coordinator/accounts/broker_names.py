"""The names of an application from which RabbitMQ's accounts are made."""

from collections.abc import Mapping, Sequence

from coordinator.registry import Registry
from coordinator.runtime.settings import IngressSettings, load
from coordinator.service.lane_names import service_of
from coordinator.transports.rabbitmq.rights import BrokerNames


def broker_names(
    known: Registry, more_gateways: Sequence[str] = (), together: Mapping[str, Sequence[str]] | None = None
) -> BrokerNames:
    """Those of its services and gateways; `more_gateways` are others beside them, and `together` processes with several
    of its lanes. Outside accounts are those of INGRESS_ACCOUNTS. Raises ConfigurationError.

    A service with tenants has an account for the one gateway of all of them, too.
    """
    system_gateways = known.system_gateways
    return BrokerNames(
        lanes=known.names,
        calling=[service.lane for service in known.calling],
        gateways=tuple(dict.fromkeys((*known.served_names, *more_gateways))),
        system_gateways=tuple(dict.fromkeys((*system_gateways, *map(service_of, system_gateways)))),
        together=together or {},
        outside=load(IngressSettings).named,
    )
