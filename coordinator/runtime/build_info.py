"""Which release a process runs, for its metrics."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from platform import python_version

from prometheus_client import Gauge

BUILD = Gauge("coordinator_build_info", "1; its labels are what this process runs.", ["version", "python"])


@cache
def show_build() -> None:
    """Have the metrics say it from now on."""
    try:
        release = version("write-coordinator")
    except PackageNotFoundError:
        # A checkout that is not installed.
        release = "unknown"
    BUILD.labels(release, python_version()).set(1)
