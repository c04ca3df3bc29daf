"""Principals: who asks for something, as whoever checked his credentials has found."""

from functools import cached_property, lru_cache
from typing import Final

import msgspec
from msgspec import Struct

from coordinator.service.text import is_encodable, normalized, unassigned_in, unseen_in

SUBJECT_CHARACTERS_MAX: Final = 200
TENANT_CHARACTERS_MAX: Final = 100
SCOPE_CHARACTERS_MAX: Final = 100
SCOPES_MAX: Final = 50
SCOPES_CHARACTERS_MAX: Final = 2000
"""Of all scopes together: they travel in the head of each message, which has little room."""
_REMEMBERED_MAX: Final = 1000
"""Of how many it is remembered what is wrong with them: a busy process's principals come again and again."""
BROKER_USER: Final = "amqp:"
"""The beginning of the subjects of RabbitMQ's accounts: no credential's may begin so, or it could pass for one."""

_encode = msgspec.json.Encoder(order="deterministic").encode


class Principal(Struct, frozen=True, kw_only=True, cache_hash=True, dict=True):
    """Who asks.

    `subject` names him within this deployment: the `sub` of a token, or what an API key was made for. `tenant` is the
    customer for whom he acts; None: there are none. `scopes` are what his credential is good for, as its issuer says.
    He keeps the texts that stand for him: a busy process meets him again and again.
    """

    subject: str
    tenant: str | None = None
    scopes: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Raises TypeError: in a text `in` would find a part of a scope."""
        if not isinstance(self.scopes, frozenset):
            raise TypeError(f"the scopes of a Principal are a frozenset of texts, not {self.scopes!r:.100}")

    @cached_property
    def as_json(self) -> str:
        """JSON text of all of him: of the same principal always the same.

        Raises TypeError and ValueError for what no JSON can have.
        """
        return _encode(self).decode()

    @cached_property
    def defect(self) -> str | None:
        """What is wrong with one whom somebody has named who is not the system, in words; None: nothing."""
        return defect_of(self)

    @cached_property
    def is_sound(self) -> bool:
        """Whether he can ask for a command that is not the system's: nothing is wrong with him."""
        try:
            return bool(self.as_json) and self.defect is None
        except (TypeError, AttributeError, ValueError):
            return False

    @cached_property
    def json_bytes(self) -> int:
        """How many bytes that text has."""
        return len(self.as_json.encode())

    @cached_property
    def as_logged(self) -> str:
        """The JSON text by which logs know him: his subject, and his tenant if he has one.

        What his credential was good for then is not what he is good for now.
        """
        names = {"subject": self.subject} if self.tenant is None else {"subject": self.subject, "tenant": self.tenant}
        return _encode(names).decode()


class UnbelievedAccount(Principal, frozen=True, kw_only=True, cache_hash=True):
    """An account of RabbitMQ's that says for whom it asks, and is not believed: a gateway that its lane does not know.

    It is noted as the one who asked. No rule allows it, since all who ask of that gateway would be one.
    """


NO_SCOPES: Final[frozenset[str]] = frozenset()


def of_broker_user(user: str, scopes: frozenset[str] = NO_SCOPES, *, names_another: bool = False) -> Principal | None:
    """Who asks where only the broker knows him: an account of RabbitMQ's. None: its name has no place in a log.

    `names_another`: it says that it asks for somebody else.
    """
    kind = UnbelievedAccount if names_another else Principal
    principal = kind(subject=f"{BROKER_USER}{user}", scopes=scopes)
    return principal if defect_of(principal, may_be_broker_user=True) is None else None


@lru_cache(maxsize=_REMEMBERED_MAX)
def defect_of(principal: Principal, *, may_be_broker_user: bool = False) -> str | None:
    """What is wrong with a principal that somebody else has named, in words; None: nothing."""
    if principal.subject.startswith(BROKER_USER) and not may_be_broker_user:
        return f"a subject that begins with {BROKER_USER} is an account of RabbitMQ's"
    if not _is_name(principal.subject, SUBJECT_CHARACTERS_MAX):
        return f"a subject has 1 to {SUBJECT_CHARACTERS_MAX} visible characters, in Unicode's form NFC"
    if principal.tenant is not None and not _is_name(principal.tenant, TENANT_CHARACTERS_MAX):
        return f"a tenant has 1 to {TENANT_CHARACTERS_MAX} visible characters, in Unicode's form NFC"
    if len(principal.scopes) > SCOPES_MAX or not all(is_scope(scope) for scope in principal.scopes):
        return f"there are at most {SCOPES_MAX} scopes, each of 1 to {SCOPE_CHARACTERS_MAX} visible ASCII characters"
    if sum(map(len, principal.scopes)) > SCOPES_CHARACTERS_MAX:
        return f"its scopes have at most {SCOPES_CHARACTERS_MAX} characters together"
    return None


def defect_of_new(principal: Principal) -> str | None:
    """What is wrong with a principal whose credential is seen for the first time, in words; None: nothing.

    Such a name has no unassigned characters either. Names that are on their way with a command are not asked for them
    again: another process may know another release of Unicode.
    """
    names = {"a subject": principal.subject, "a tenant": principal.tenant or ""}
    for what, name in names.items():
        if (unassigned := unassigned_in(name)) is not None:
            return f"{what} has no characters that Unicode has not assigned, nor private ones, such as {unassigned}"
    return defect_of(principal)


def _is_name(text: str, characters_max: int) -> bool:
    # Two that look alike are one: whoever compares them sees what a person sees.
    is_seen = is_encodable(text) and unseen_in(text) is None and text == text.strip()
    return is_seen and 0 < len(text) <= characters_max and text == normalized(text)


def is_scope(text: str) -> bool:
    """Whether a credential can have this scope."""
    return 0 < len(text) <= SCOPE_CHARACTERS_MAX and text.isascii() and text.isprintable() and " " not in text
