"""Public names: the groups of settings that services and programs read, and how."""

from coordinator.runtime.cache_settings import CacheSettings
from coordinator.runtime.fit import check_fit
from coordinator.runtime.loading import setting_value
from coordinator.runtime.settings import (
    BrokerSettings,
    DatabaseSettings,
    EffectSettings,
    GatewaySettings,
    LaneSettings,
    Limits,
    ReaderSettings,
    load,
)

__all__ = (
    "BrokerSettings",
    "CacheSettings",
    "DatabaseSettings",
    "EffectSettings",
    "GatewaySettings",
    "LaneSettings",
    "Limits",
    "ReaderSettings",
    "load",
    "setting_value",
    "check_fit",
)
