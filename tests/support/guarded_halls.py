"""The service that keeps each tenant's data in a lane of its own, for callers who prove who they are."""

from coordinator import any_principal
from coordinator.registry import App
from tests.support.halls import halls as open_halls

halls = open_halls.replace(allow=any_principal)

APP = App(services={"halls": f"{__name__}:halls"}, tenants={"halls": ("acme", "bolt")})
