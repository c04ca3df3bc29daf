"""Whether this process records spans: where an address to export them to is set, and nothing is imported elsewhere."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from coordinator.runtime.recording import use_recorder

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


@contextmanager
def recording_spans(process: str) -> Iterator[None]:
    """Record and export the spans of what runs inside, as the settings say; `process` is the name in its log lines.

    At the end what was recorded is exported, for a second at most. Raises ConfigurationError.
    """
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        yield
        return
    from importlib.metadata import version  # noqa: PLC0415

    from coordinator.runtime.span_export import start_span_export  # noqa: PLC0415

    exporter = start_span_export(process, version("write-coordinator"))
    try:
        yield
    finally:
        use_recorder(None)
        exporter.stop()
