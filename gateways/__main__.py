"""`python -m gateways <service>`: `coordinator gateway` for the reference system."""

import os
import sys

from coordinator.cli import main

os.environ["COORDINATOR_APP"] = "gateways.app:APP"
sys.argv.insert(1, "gateway")
main()
