"""RabbitMQ's management API: the one way to accounts that a server of somebody else's has, too."""

import json
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Mapping, Sequence
from http.client import HTTPException, HTTPResponse
from typing import Any, Final, cast
from urllib.parse import quote

from msgspec import Struct
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from coordinator.runtime.address_fields import Url
from coordinator.runtime.addresses import Address, parse_address
from coordinator.runtime.asking import open_within, read_within
from coordinator.runtime.settings import Limits
from coordinator.service.errors import BrokerUnavailable, ConfigurationError
from coordinator.transports.rabbitmq.definitions import HASHING

_TIMEOUT_S: Final = 15
_ANSWER_BYTES_MAX: Final = 64 << 20
_REFUSAL_BYTES_MAX: Final = 10_000
_PORTS: Final = {"http": 15672, "https": 15671}
_NOT_FOUND: Final = 404
_REFUSED: Final = (401, 403)
_SETTING: Final = "RABBITMQ_ADMIN_URL"


class BrokerAdminSettings(BaseSettings, Limits):
    """RabbitMQ's management, for who makes accounts."""

    model_config = SettingsConfigDict(env_prefix="RABBITMQ_")

    admin_url: Url | None = Field(
        repr=False,
        default=None,
        pattern=r"^https?://",
        description="RabbitMQ's management, with an account that has the tag `administrator`: "
        "`https://NAME:PASSWORD@HOST:15671`. For `coordinator broker-accounts --apply` and `--check`. "
        "`coordinator status` shows the members of lanes' queues by it, for which the tag `monitoring` is enough.",
    )


class KeptAccount(Struct, frozen=True, kw_only=True):
    """An account as the server has it. `rights` are by vhost."""

    name: str
    password_hash: str
    hashing: str
    tags: str
    rights: Mapping[str, Mapping[str, str]]
    limits: Mapping[str, int]


class Management:
    """One server's. Its methods raise BrokerUnavailable where it is away, ConfigurationError where it refuses."""

    def __init__(self, address: Address) -> None:
        host = address.one_host()
        if host is None or address.user is None:
            raise ConfigurationError(f"{_SETTING}: it must be https://NAME:PASSWORD@HOST:PORT")
        address.check_options(())
        name = f"[{host.name}]" if ":" in host.name else host.name
        prefix = f"/{quote(address.database)}" if address.database else ""
        self._shown = f"{name}:{host.port or _PORTS[address.scheme]}"
        self._base = f"{address.scheme}://{self._shown}{prefix}/api"
        self.user = address.user
        credentials = f"{address.user}:{address.plain_password or ''}"
        self._authorization = f"Basic {b64encode(credentials.encode()).decode()}"

    def accounts(self) -> dict[str, KeptAccount]:
        """All of the server's, by name."""
        try:
            return self._accounts()
        except (KeyError, TypeError, AttributeError):
            # Elements of another form.
            raise self._no_management() from None

    def has_vhost(self, vhost: str) -> bool:
        try:
            return any(each["name"] == vhost for each in self._asked("vhosts"))
        except (KeyError, TypeError):
            raise self._no_management() from None

    def queue(self, vhost: str, name: str) -> dict[str, Any]:
        """What it says of a queue; of a quorum queue with `leader`, `members` and `online`, a moment old."""
        answer = self._call("GET", f"queues/{_part(vhost)}/{_part(name)}")
        if not isinstance(answer, dict):
            raise self._no_management()
        return answer

    def queues(self, vhost: str, columns: Sequence[str]) -> list[dict[str, Any]]:
        """What it says of all queues: these of its columns."""
        return self._asked(f"queues/{_part(vhost)}?columns={','.join(columns)}")

    def put_account(self, name: str, password_hash: str) -> None:
        """Make it, or give it this password, without any tag."""
        body = {"password_hash": password_hash, "hashing_algorithm": HASHING, "tags": ""}
        self._call("PUT", f"users/{_part(name)}", body)

    def put_rights(self, name: str, vhost: str, rights: Mapping[str, str]) -> None:
        """In the place of those that it had there."""
        self._call("PUT", f"permissions/{_part(vhost)}/{_part(name)}", dict(rights))

    def delete_rights(self, name: str, vhost: str) -> None:
        self._call("DELETE", f"permissions/{_part(vhost)}/{_part(name)}")

    def put_limit(self, name: str, limit: str, value: int) -> None:
        self._call("PUT", f"user-limits/{_part(name)}/{_part(limit)}", {"value": value})

    def _accounts(self) -> dict[str, KeptAccount]:
        rights: dict[str, dict[str, Mapping[str, str]]] = {}
        for each in self._asked("permissions"):
            rights.setdefault(each["user"], {})[each["vhost"]] = {
                kind: each[kind] for kind in ("configure", "write", "read")
            }
        limits = {each["user"]: each["value"] for each in self._asked("user-limits")}
        return {
            each["name"]: KeptAccount(
                name=each["name"],
                password_hash=each.get("password_hash", ""),
                hashing=each.get("hashing_algorithm", HASHING),
                tags=_joined(each.get("tags", "")),
                rights=rights.get(each["name"], {}),
                limits=limits.get(each["name"], {}),
            )
            for each in self._asked("users")
        }

    def _asked(self, what: str) -> list[dict[str, Any]]:
        answer = self._call("GET", what)
        if not isinstance(answer, list):
            raise self._no_management()
        return answer

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        headers = {"Authorization": self._authorization, "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        # The setting takes http:// and https:// only.
        request = urllib.request.Request(f"{self._base}/{path}", data, headers, method=method)  # noqa: S310
        try:
            text = _answer_to(request)
        except urllib.error.HTTPError as error:
            raise self._refusal(error.code, path, _beginning_of(error)) from None
        except (OSError, ValueError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise BrokerUnavailable(f"RabbitMQ's management at {self._shown} does not answer: {reason}") from None
        try:
            return json.loads(text) if text else None
        except (ValueError, RecursionError):
            raise self._no_management() from None

    def _no_management(self) -> ConfigurationError:
        return ConfigurationError(f"{_SETTING}: {self._shown} is no management of RabbitMQ's")

    def _refusal(self, status: int, path: str, text: bytes) -> ConfigurationError:
        if status in _REFUSED:
            return ConfigurationError(
                f"{_SETTING}: RabbitMQ at {self._shown} does not let {self.user!r} see and change accounts: check its "
                f"password, and give it the tag administrator ({_reason(text)})"
            )
        if status == _NOT_FOUND:
            return ConfigurationError(f"{_SETTING}: RabbitMQ's management at {self._shown} has no /api/{path}")
        return ConfigurationError(f"RabbitMQ's management at {self._shown} refuses {path} ({status}): {_reason(text)}")


def open_management(url: str | None) -> Management:
    """Raises ConfigurationError where no address is given."""
    if url is None:
        raise ConfigurationError(
            f"{_SETTING} is not set: it is the address of RabbitMQ's management, with an account that has the tag "
            "administrator, such as https://NAME:PASSWORD@HOST:15671"
        )
    return Management(parse_address(url))


def _answer_to(request: urllib.request.Request) -> bytes:
    """The whole body. Raises OSError, ValueError, HTTPException."""
    with open_within(request, _TIMEOUT_S, has_proxies=True) as answer:
        text = read_within(answer, _ANSWER_BYTES_MAX + 1)
    if len(text) > _ANSWER_BYTES_MAX:
        raise ValueError(f"more than {_ANSWER_BYTES_MAX} bytes")
    return text


def _beginning_of(error: urllib.error.HTTPError) -> bytes:
    """Of what it says of an error; nothing where its connection ends before that."""
    try:
        with error:
            return read_within(cast(HTTPResponse, error.fp), _REFUSAL_BYTES_MAX)
    except (OSError, HTTPException):
        return b""


def _part(name: str) -> str:
    return quote(name, safe="")


def _joined(tags: str | list[str]) -> str:
    """RabbitMQ has them as a list, and had them as a text."""
    return tags if isinstance(tags, str) else ",".join(tags)


def _reason(text: bytes) -> str:
    try:
        said = json.loads(text)
        return str(said.get("reason") or said.get("error"))[:200]
    except (ValueError, AttributeError):
        return text.decode(errors="replace")[:200]
