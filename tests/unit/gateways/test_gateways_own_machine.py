"""A gateway that asks nobody who he is serves this machine, and not the pages of other sites that it shows."""

from contextlib import nullcontext

import pytest
from aiohttp.test_utils import make_mocked_request
from pydantic import ValidationError

from coordinator.access.opening import is_own_machine
from coordinator.access.settings import AccessSettings
from coordinator.http.own_machine import AskedAs, asked_as, check_own_machine
from coordinator.http.problems import RequestRefused


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "localhost:8081"},
        {"Host": "127.0.0.1"},
        {"Host": "[::1]:8081"},
        {"Host": "acme.localhost:8081", "Origin": "http://acme.localhost:8081"},
        {"Host": "LOCALHOST:1", "Origin": "http://localhost:3000"},
        {"Host": "127.0.0.1:8081", "Origin": "https://127.0.0.1"},
        {"Host": "localhost:8081", "Sec-Fetch-Site": "none"},
        {"Host": "localhost:8081", "Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"},
    ],
)
def test_this_machine_is_served(headers: dict[str, str]) -> None:
    check_own_machine(make_mocked_request("POST", "/", headers=headers))


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "elsewhere.example"},
        {"Host": "localhost.elsewhere.example:8081"},
        {"Host": "acmelocalhost"},
        {"Host": "localhost@elsewhere.example"},
        {"Host": "[::1"},
        {"Host": ""},
        {"Host": "localhost", "Origin": "https://elsewhere.example"},
        {"Host": "localhost", "Origin": "https://localhost.elsewhere.example"},
        {"Host": "localhost", "Origin": "null"},
        {"Host": "localhost", "Origin": ""},
        {"Host": "localhost", "Sec-Fetch-Site": "cross-site"},
        {"Host": "localhost", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
        {"Host": "localhost", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    ],
)
def test_a_page_of_another_site_is_not(headers: dict[str, str]) -> None:
    with pytest.raises(RequestRefused, match="ACCESS_METHODS is not set") as refused:
        check_own_machine(make_mocked_request("POST", "/", headers=headers))
    assert refused.value.status == 403


@pytest.mark.parametrize(
    ("target", "is_served"),
    [
        ("http://localhost:8081/users", True),
        ("http://127.0.0.1/users", True),
        ("http://elsewhere.example/users", False),
        ("http://localhost@elsewhere.example/users", False),
        ("HTTPS://elsewhere.example", False),
        ("elsewhere.example:443", False),
    ],
)
def test_the_request_line_says_by_which_name_it_is_asked(target: str, *, is_served: bool) -> None:
    """It counts more than the `Host` beside it."""
    method = "GET" if "://" in target else "CONNECT"
    request = make_mocked_request(method, target, headers={"Host": "localhost"})
    with nullcontext() if is_served else pytest.raises(RequestRefused):
        check_own_machine(request)


@pytest.mark.parametrize(
    "name",
    [
        *("Forwarded", "Via", "VIA", "X-Real-IP", "X-Scheme", "X-Client-IP", "X-Cluster-Client-Ip", "X-ProxyUser-Ip"),
        *("X-Forwarded-For", "x-forwarded-host", "X-Forwarded-Proto", "X-Forwarded-Server", "X-Forwarded-Port"),
        *("X-Forwarded-Ssl", "X-Forwarded-Scheme", "X-Forwarded-Prefix", "X-Forwarded", "X-Original-Forwarded-For"),
        *("True-Client-IP", "CF-Connecting-IP", "Fastly-Client-IP", "X-Envoy-External-Address"),
    ],
)
def test_what_comes_through_a_proxy_is_not(name: str) -> None:
    """It asks by the address that it was given, for whoever reaches it."""
    headers = {"Host": "127.0.0.1:8081", name: ""}
    with pytest.raises(RequestRefused, match="through no proxy"):
        check_own_machine(make_mocked_request("GET", "/users", headers=headers))


@pytest.mark.parametrize(("method", "is_served"), [("GET", True), ("HEAD", True), ("POST", False)])
def test_a_link_to_this_machine_is_followed_from_anywhere(method: str, *, is_served: bool) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    request = make_mocked_request(method, "/docs", headers={"Host": "localhost", **link})
    with nullcontext() if is_served else pytest.raises(RequestRefused):
        check_own_machine(request)


@pytest.mark.parametrize(
    ("methods", "host", "is_own"),
    [("", "127.0.0.1", True), ("", "10.0.0.5", False), ("none", "127.0.0.1", False), ("keys", "localhost", False)],
)
def test_whoever_says_who_may_ask_has_said_it(methods: str, host: str, is_own: bool) -> None:
    assert is_own_machine(AccessSettings(methods=methods), host) is is_own


OPEN = AskedAs(frozenset({"gateway", "shop.example"}), by_proxy=True)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "gateway:8080"},
        {"Host": "Shop.example", "Origin": "https://shop.example"},
        {"Host": "127.0.0.1:8080"},
        {"Host": "localhost", "X-Forwarded-For": "10.0.0.5"},
        {},
    ],
)
def test_who_lets_everybody_in_may_say_by_which_names(headers: dict[str, str]) -> None:
    check_own_machine(make_mocked_request("POST", "/", headers=headers), OPEN)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "elsewhere.example:8080", "Origin": "http://elsewhere.example:8080", "Sec-Fetch-Site": "same-origin"},
        {"Host": "localhost", "Origin": "https://elsewhere.example"},
        {"Host": "shop.example.elsewhere.example"},
        {"Host": "gateway", "Sec-Fetch-Site": "cross-site"},
        {"Host": "10.0.0.5"},
    ],
)
def test_then_no_page_of_a_site_whose_name_leads_here_asks(headers: dict[str, str]) -> None:
    with pytest.raises(RequestRefused, match="ACCESS_OPEN_AS"):
        check_own_machine(make_mocked_request("POST", "/", headers=headers), OPEN)


@pytest.mark.parametrize(
    ("methods", "open_as", "asked"),
    [
        ("", "shop.example", AskedAs()),
        ("none", "", None),
        ("none", "Gateway, shop.example", OPEN),
        ("keys", "shop.example", None),
    ],
)
def test_names_count_where_everybody_is_let_in(methods: str, open_as: str, asked: AskedAs | None) -> None:
    assert asked_as(AccessSettings(methods=methods, open_as=open_as), "127.0.0.1") == asked


def test_what_is_no_name_of_a_host_is_refused_at_the_start() -> None:
    with pytest.raises(ValidationError, match="is no name of a host"):
        AccessSettings(methods="none", open_as="http://shop.example")
