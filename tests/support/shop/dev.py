"""What orders want of a developer's machine: PostgreSQL, and a carrier beside them."""

import sys

from coordinator.dev import DevService, Helper, Place


def _command(place: Place) -> list[str]:
    place.directory.mkdir(exist_ok=True)
    return [
        *(sys.executable, "-m", "http.server", str(place.port)),
        *("--bind", "127.0.0.1", "--directory", str(place.directory)),
    ]


def _settings(place: Place) -> dict[str, str]:
    return {"CARRIER_URL": place.url, "CARRIER_TELLS": f"{place.gateway_url}/carrier"}


CARRIER = Helper(
    name="carrier", title="the carrier", port=8090, command=_command, settings=_settings, ready_path="/", shown_path="/"
)

DEV = DevService(database="postgresql", helpers=(CARRIER,), secrets=("CARRIER_KEY",))
