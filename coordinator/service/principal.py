"""Principals: who asks for something, as whoever checked his credentials has found."""

from typing import Final

from msgspec import Struct

from coordinator.service.text import is_encodable, normalized, unseen_in

SUBJECT_CHARACTERS_MAX: Final = 200
TENANT_CHARACTERS_MAX: Final = 100
SCOPE_CHARACTERS_MAX: Final = 100
SCOPES_MAX: Final = 50


class Principal(Struct, frozen=True, kw_only=True):
    """Who asks.

    `subject` names him within this deployment: the `sub` of a token, or what an API key was made for. `tenant` is the
    customer for whom he acts; None: there are none. `scopes` are what his credential is good for, as its issuer says.
    """

    subject: str
    tenant: str | None = None
    scopes: frozenset[str] = frozenset()


def defect_of(principal: Principal) -> str | None:
    """What is wrong with a principal that somebody else has named, in words; None: nothing."""
    if not _is_name(principal.subject, SUBJECT_CHARACTERS_MAX):
        return f"a subject has 1 to {SUBJECT_CHARACTERS_MAX} visible characters, in Unicode's form NFC"
    if principal.tenant is not None and not _is_name(principal.tenant, TENANT_CHARACTERS_MAX):
        return f"a tenant has 1 to {TENANT_CHARACTERS_MAX} visible characters, in Unicode's form NFC"
    if len(principal.scopes) > SCOPES_MAX or not all(_is_scope(scope) for scope in principal.scopes):
        return f"there are at most {SCOPES_MAX} scopes, each of 1 to {SCOPE_CHARACTERS_MAX} visible ASCII characters"
    return None


def _is_name(text: str, characters_max: int) -> bool:
    # Two that look alike are one: whoever compares them sees what a person sees.
    is_seen = is_encodable(text) and unseen_in(text) is None and text == text.strip()
    return is_seen and 0 < len(text) <= characters_max and text == normalized(text)


def _is_scope(text: str) -> bool:
    return 0 < len(text) <= SCOPE_CHARACTERS_MAX and text.isascii() and text.isprintable() and " " not in text
