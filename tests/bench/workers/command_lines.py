"""How a worker is started, and what it is told."""

from pathlib import Path

NAMES = ("celery", "aio-pika", "procrastinate")


def worker_of(
    name: str, database_url: str, directory: Path, environment: dict[str, str]
) -> tuple[list[str], dict[str, str]]:
    """The arguments after the interpreter, and the settings."""
    settings = {
        "BENCH_DATABASE_URL": database_url,
        "BENCH_DONE_PATH": str(directory / "done"),
        "AMQP_URL": environment["AMQP_URL"],
    }
    if name == "celery":
        options = ["--pool", "solo", "--loglevel", "ERROR", "--without-gossip", "--without-mingle"]
        return ["-m", "celery", "-A", "tests.bench.workers.celery_worker", "worker", *options], settings
    module = {"aio-pika": "aio_pika_worker", "procrastinate": "procrastinate_worker"}[name]
    return ["-m", f"tests.bench.workers.{module}"], settings
