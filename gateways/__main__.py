"""`python -m gateways <service>`: `coordinator gateway` for the reference system."""

import sys

from coordinator.cli import main
from coordinator.registry import use

use("gateways.app:APP")
sys.argv.insert(1, "gateway")
main()
