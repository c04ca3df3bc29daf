"""The files of secrets that this process has read, and whether they say something else by now.

A secret is read once, at the start. Whoever rotates a password and forgets a process would have it try the old one for
ever: so it looks at the files again, and says that it must be started anew.
"""

import asyncio
import hashlib
from typing import Final

import structlog

from coordinator.runtime.plain_files import read_plain_file, text_in

SECRET_BYTES_MAX: Final = 64 << 10
LOOK_EVERY_S: Final = 2.0

log = structlog.get_logger("secrets")


class SecretFiles:
    """What the files had that settings name, by the name of the setting. Used by any thread."""

    def __init__(self) -> None:
        self._read: dict[str, tuple[str, str]] = {}
        """The path, and a digest of the secret that was there first: some part of the process may have that still."""
        self._seen: dict[str, str] = {}
        self._changed: frozenset[str] = frozenset()

    def note(self, setting: str, path: str, text: str) -> None:
        """This process has read a secret."""
        self._read.setdefault(setting, (path, _digest(text)))

    @property
    def problem(self) -> str | None:
        """Which files have changed; None: none has."""
        if not self._changed:
            return None
        return f"{', '.join(sorted(self._changed))}: changed since this process read it: start the process anew"

    async def watch(self) -> None:
        """Look at the files again and again. Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            # Files may be on a disk that does not answer.
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Read the files, and log what has changed. What changes still is looked at once more before it counts."""
        before, changed = self._changed, set(self._changed)
        for setting, (path, digest) in list(self._read.items()):
            now = _digest_in(path)
            # Half written, or taken away, as some do once a process has started: no other secret is there.
            if now is not None and now == self._seen.get(setting):
                (changed.discard if now == digest else changed.add)(setting)
            if now is not None:
                self._seen[setting] = now
        self._changed = frozenset(changed)
        for setting in sorted(self._changed - before):
            log.warning(
                "secret_file_changed",
                setting=setting,
                what_to_do="start this process anew: it goes on with the secret that it has read",
            )


SECRET_FILES: Final = SecretFiles()
"""Those of this process."""


def _digest_in(path: str) -> str | None:
    try:
        text = text_in(read_plain_file(path, SECRET_BYTES_MAX + 1))
    except (OSError, ValueError):
        return None
    return _digest(text) if text else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
