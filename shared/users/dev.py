"""The server that users need on a developer's machine: PostgreSQL."""

from typing import Final

from coordinator.dev import DevService

DEV: Final = DevService(database="postgresql", gateway_port=8081, metrics_port=9101)
