"""Whose requests those at a host are, where one port serves several tenants.

The host is a part of every address, so whatever is kept by address is one tenant's: caches, cookies, ETags, origins. A
header would not be: a cache would give one tenant's row to another.
"""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from coordinator.http.own_machine import authority_of
from coordinator.http.problems import RequestRefused
from coordinator.service.errors import ConfigurationError
from coordinator.service.lane_names import is_name

TENANT_HOSTS: Final = "GATEWAY_TENANT_HOSTS"
TenantOfHost = Callable[[str], str | None]
"""The tenant whose host it is; None: it is nobody's. The host is in small letters, without a port or a last dot."""

_LABEL = "[a-z0-9_-]{1,63}"
_HOST: Final = re.compile(rf"({_LABEL}(?:\.{_LABEL})*+)\.?(?::[0-9]{{0,5}})?", re.ASCII | re.IGNORECASE)
"""A name or an address of IPv4. One of IPv6 names no tenant."""
_CHARACTERS_MAX: Final = 253
_SHOWN: Final = 40


def host_of(request: web.BaseRequest) -> str | None:
    """The host at which a request is made, in one form; None: it says none, or none that has a name.

    Raises RequestRefused (400) where it says two: what stands in front may have looked at the other one.
    """
    values = request.headers.getall("Host", ())
    if len(values) > 1:
        # Newer releases of aiohttp do not let it come so far.
        raise RequestRefused(400, "invalid_header", "Host is given twice", field="Host")
    said = named_host(values[0]) if values else None
    target = authority_of(request)
    if target is None:
        return said
    asked = named_host(_authority(target))
    if values and asked != said:
        text = "the address in the request line has another host than Host (RFC 9112, section 3.2.2)"
        raise RequestRefused(400, "invalid_header", text, field="Host")
    return asked


def named_host(text: str) -> str | None:
    """The name in a `Host`; None: it is none."""
    found = _HOST.fullmatch(text) if len(text) <= _CHARACTERS_MAX + 7 else None
    return None if found is None else found.group(1).lower()


def tenants_hosts(text: str, known: Collection[str]) -> dict[str, str]:
    """The tenants, by the hosts that the setting GATEWAY_TENANT_HOSTS names: `acme=www.acme.example bolt=bolt.example`.

    `known` are the tenants that there are. Raises ConfigurationError.
    """
    found: dict[str, str] = {}
    for entry in text.replace(",", " ").split():
        tenant, equals, name = entry.partition("=")
        host = named_host(name) if ":" not in name else None
        if not equals or not is_name(tenant) or host is None:
            raise ConfigurationError(
                f"{TENANT_HOSTS} has {entry[:_SHOWN]!r}: write TENANT=HOST, such as acme=www.acme.example, without a"
                " port; a name that is not ASCII in the form that begins with xn--"
            )
        if tenant not in known:
            raise ConfigurationError(
                f"{TENANT_HOSTS} names tenant {tenant!r}, and there are {', '.join(sorted(known))}"
            )
        if found.setdefault(host, tenant) != tenant:
            raise ConfigurationError(f"{TENANT_HOSTS} has {host} for both {found[host]} and {tenant}")
    return found


def tenant_by_host(named: Mapping[str, str], others: TenantOfHost | None = None) -> TenantOfHost:
    """By the hosts that are named; of tenants without one `others` decides, or else the first label is the tenant's.

    In a label a `-` stands for the `_` of a name, which hosts cannot have everywhere.
    """
    has_hosts = frozenset(named.values())

    def by_label(host: str) -> str | None:
        tenant = host.partition(".")[0].replace("-", "_")
        return None if tenant in has_hosts else tenant

    find = by_label if others is None else others
    return lambda host: named.get(host) or find(host)


def _authority(target: str) -> str:
    try:
        return urlsplit(target).netloc
    except ValueError:
        # Brackets without an address of IPv6 in them, say.
        return ""
