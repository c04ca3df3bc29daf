"""promtool, which checks Prometheus' rules and configurations. It is installed as the servers are."""

import subprocess
from pathlib import Path

from coordinator.dev.install import Installation, NeededProgram
from coordinator.dev.servers.programs import find

PROGRAM = NeededProgram(("promtool",), "prometheus")
TIMEOUT_S = 60


def promtool(log_path: Path, *arguments: str) -> str:
    """What it says; it must find nothing wrong."""
    Installation(print, log_path, (PROGRAM,)).run()
    path = find(*PROGRAM.names)
    assert path is not None
    said = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert said.returncode == 0, f"{said.stdout}\n{said.stderr}"
    return said.stdout
