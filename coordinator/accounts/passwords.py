"""Passwords of accounts, never on a command line: from the environment, or from a folder that gets the missing ones."""

import os
import secrets
import stat
import unicodedata
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from coordinator.runtime.loading import setting_value
from coordinator.runtime.plain_files import open_plain_file, text_in
from coordinator.runtime.secret_files import SECRET_BYTES_MAX
from coordinator.service.errors import ConfigurationError
from coordinator.service.lane_names import TENANT_SIGN

ENVIRONMENT: Final = "env"
_VARIABLE: Final = "BROKER_PASSWORD_"
_MADE_BYTES: Final = 24
_OF_OTHERS: Final = 0o077
_WRITE_OF_OTHERS: Final = 0o002


class Passwords(Protocol):
    """The passwords of accounts, by name."""

    def known(self, account: str) -> str | None:
        """The password of an account; None: there is none. Raises ConfigurationError for one of no use."""

    def given(self, account: str) -> str:
        """The password of an account, made if it may be. Raises ConfigurationError."""


class NamedPasswords:
    """Those that variables of the environment have: BROKER_PASSWORD_<ACCOUNT>, or the files that …_FILE names."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment

    def known(self, account: str) -> str | None:
        variable = _variable(account)
        password = setting_value(variable, self._environment)
        return _checked(password, variable) if password else None

    def given(self, account: str) -> str:
        password = self.known(account)
        if password is None:
            raise ConfigurationError(f"{_variable(account)} is not set: it is the password of {account}")
        return password


def _variable(account: str) -> str:
    return f"{_VARIABLE}{account.upper().replace(TENANT_SIGN, '_')}"


class KeptPasswords:
    """Those in a folder: `<account>.password`, and beside it `<account>.amqp_url` for AMQP_URL_FILE.

    Only their owner may read them. Who runs a process needs no file but its own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, account: str) -> Path:
        return self.folder / f"{account}.password"

    def known(self, account: str) -> str | None:
        path = self.path(account)
        try:
            if stat.S_IMODE(self.folder.stat().st_mode) & _WRITE_OF_OTHERS:
                raise ConfigurationError(
                    f"--passwords: others may write {self.folder}, and put passwords there that they know: chmod 700, "
                    "and change these passwords"
                )
            with open_plain_file(path) as file:
                if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & _OF_OTHERS:
                    raise ConfigurationError(
                        f"--passwords: {path} can be read by others: chmod 600, and change that password"
                    )
                password = text_in(file.read(SECRET_BYTES_MAX))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigurationError(f"--passwords: {path} cannot be read: {error.strerror}") from None
        except ValueError:
            raise ConfigurationError(f"--passwords: {path} is no text in UTF-8") from None
        return _checked(password, str(path))

    def given(self, account: str) -> str:
        password = self.known(account)
        if password is not None:
            return password
        made = secrets.token_urlsafe(_MADE_BYTES)
        self._write(self.path(account), f"{made}\n", is_new=True)
        # Where another run has made one meanwhile, that counts.
        return self.known(account) or made

    def write(self, path: Path, text: str) -> None:
        """Write a file that only we may read, whole or not at all. Raises ConfigurationError."""
        self._write(path, text, is_new=False)

    def _write(self, path: Path, text: str, *, is_new: bool) -> None:
        """`is_new`: a file that is there by now stays."""
        # Another run may write the same file: each has a name of its own until it is whole.
        unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if not (is_new and _is_linked(unfinished, path)):
                unfinished.replace(path)
        except OSError as error:
            with suppress(OSError):
                unfinished.unlink()
            raise ConfigurationError(f"--passwords: {path} cannot be written: {error.strerror}") from None


def _is_linked(unfinished: Path, path: Path) -> bool:
    """Give a file its name, unless another one has it.

    False: the file system has no links, or a symbolic one that leads nowhere has the name.
    """
    try:
        path.hardlink_to(unfinished)
    except FileExistsError:
        if not path.exists():
            return False
    except OSError:
        return False
    unfinished.unlink()
    return True


def _checked(password: str, where: str) -> str:
    if not password:
        raise ConfigurationError(f"{where} is empty: an account without a password lets nobody in")
    try:
        password.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(f"{where} is no text in UTF-8") from None
    if any(unicodedata.category(character) == "Cc" for character in password):
        # rabbitmqctl reads a line; and no address may hold them.
        raise ConfigurationError(f"{where} has a control character, such as a line's end within it")
    return password
