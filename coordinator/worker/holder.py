"""What a process calls itself as the holder of a lane's lease."""

import os
import secrets
import socket


def holder_name(kind: str, lane: str) -> str:
    """No other process ever has it: in a container each has the same host and number as the one before."""
    return f"{kind} {lane} {socket.gethostname()}:{os.getpid()} {secrets.token_hex(4)}"
