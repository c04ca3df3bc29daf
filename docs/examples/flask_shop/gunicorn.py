"""How gunicorn runs it: processes that are forked, and threads in each."""

from typing import Any

from flask_shop.app import WRITES

workers = 2
threads = 8
preload_app = True


def post_fork(_server: Any, _worker: Any) -> None:
    """A connection does not survive a fork, so each worker opens its own."""
    WRITES.open()


def worker_exit(_server: Any, _worker: Any) -> None:
    """Requests that still wait get OutcomeUnknown, and commands that were accepted are settled all the same."""
    WRITES.close()
