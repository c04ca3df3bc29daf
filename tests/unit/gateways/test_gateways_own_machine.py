"""A gateway that asks nobody who he is serves this machine, and not the pages of other sites that it shows."""

import pytest
from aiohttp.test_utils import make_mocked_request

from coordinator.access.opening import is_own_machine
from coordinator.access.settings import AccessSettings
from coordinator.http.own_machine import check_own_machine
from coordinator.http.problems import RequestRefused


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "localhost:8081"},
        {"Host": "127.0.0.1"},
        {"Host": "[::1]:8081"},
        {"Host": "LOCALHOST:1", "Origin": "http://localhost:3000"},
        {"Host": "127.0.0.1:8081", "Origin": "https://127.0.0.1"},
    ],
)
def test_this_machine_is_served(headers: dict[str, str]) -> None:
    check_own_machine(make_mocked_request("POST", "/", headers=headers))


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "elsewhere.example"},
        {"Host": "localhost.elsewhere.example:8081"},
        {"Host": "localhost@elsewhere.example"},
        {"Host": "[::1"},
        {"Host": ""},
        {"Host": "localhost", "Origin": "https://elsewhere.example"},
        {"Host": "localhost", "Origin": "https://localhost.elsewhere.example"},
        {"Host": "localhost", "Origin": "null"},
        {"Host": "localhost", "Origin": ""},
    ],
)
def test_a_page_of_another_site_is_not(headers: dict[str, str]) -> None:
    with pytest.raises(RequestRefused, match="ACCESS_METHODS is not set") as refused:
        check_own_machine(make_mocked_request("POST", "/", headers=headers))
    assert refused.value.status == 403


@pytest.mark.parametrize(
    ("methods", "host", "is_own"),
    [("", "127.0.0.1", True), ("", "10.0.0.5", False), ("none", "127.0.0.1", False), ("keys", "localhost", False)],
)
def test_whoever_says_who_may_ask_has_said_it(methods: str, host: str, is_own: bool) -> None:
    assert is_own_machine(AccessSettings(methods=methods), host) is is_own
