"""`python -m gateways <service>`: `coordinator gateway` for the reference system."""

import os

from coordinator.cli import main

os.environ["COORDINATOR_APP"] = "gateways.app:APP"
main("gateway", "python -m gateways")
