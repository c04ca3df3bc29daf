"""An operator's commands beside a running system, in this process: one of its own imports for most of a second."""

import json
from typing import Any

from click.testing import CliRunner

from coordinator.cli import cli
from tests.support.system import System


def operated(system: System, *arguments: str) -> Any:
    """What `coordinator … --json` prints; None if it fails because of what it finds. Raises what else ends it."""
    ran = CliRunner().invoke(cli, [*arguments, "--json"], env=system.environment)
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    return json.loads(ran.stdout) if ran.exit_code == 0 else None
