"""`python -m tests.bench.lane NAME PORT`: the coordinator of one of the benchmark's lanes."""

import sys

from coordinator.runtime.log_lines import configure_logging
from coordinator.runtime.settings import TelemetrySettings, load
from coordinator.runtime.tracing import recording_spans
from coordinator.worker.process import run
from tests.bench.service import service_named

if __name__ == "__main__":
    configure_logging(load(TelemetrySettings), f"coordinator-{sys.argv[1]}")
    with recording_spans(f"coordinator {sys.argv[1]}"):
        status = run(service_named(sys.argv[1]), int(sys.argv[2]))
    sys.exit(status)
