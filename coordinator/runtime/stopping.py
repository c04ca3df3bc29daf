"""The signals that stop a process, and the line of its log that says by which one it stops."""

import asyncio
import signal

import structlog

log = structlog.get_logger("process")


def stop_at_signals(**work: str) -> asyncio.Event:
    """An event that SIGTERM, SIGINT or SIGHUP sets; `work` names in the log what the process does.

    Within its event loop. A SIGHUP that is ignored, as `nohup` has it, stays so.
    """
    stop = asyncio.Event()

    def take(number: signal.Signals) -> None:
        if not stop.is_set():
            log.info("stopping", signal=number.name, **work)
            stop.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue
        asyncio.get_running_loop().add_signal_handler(number, take, number)
    return stop
