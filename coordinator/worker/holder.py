"""The name of a process as the holder of a lane's lease."""

import os
import secrets
import socket


def holder_name(kind: str, lane: str) -> str:
    """A name that no other process ever has. Host and process number do not suffice, since containers repeat them."""
    return f"{kind} {lane} {socket.gethostname()}:{os.getpid()} {secrets.token_hex(4)}"
