"""`python -m gateways <service>`: `coordinator gateway` for the reference system."""

import os

from write_coordinator_start import main

os.environ["COORDINATOR_APP"] = "gateways.app:APP"
main("gateway", "python -m gateways")
