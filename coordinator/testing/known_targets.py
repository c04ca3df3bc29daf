"""To whom a service under test can emit, where its application is known."""

import os
from functools import cache

from coordinator.registry import APP_SETTING, registry, targets_of
from coordinator.service.errors import ConfigurationError
from coordinator.service.service import Service


def known_targets(service: Service) -> frozenset[str] | None:
    """The lanes and effects of its application; None: any, since no application is known that has this service.

    It is that of COORDINATOR_APP, or else what installed packages name as their services.
    """
    others = _targets(os.environ.get(APP_SETTING, ""), service.name)
    return None if others is None else others | targets_of((service,))


@cache
def _targets(app: str, service_name: str) -> frozenset[str] | None:  # noqa: ARG001  # the registry reads it
    try:
        known = registry()
        return known.targets() if service_name in known.names else None
    except ConfigurationError:
        # None is named, or it cannot run: that is for its own start to tell.
        return None
