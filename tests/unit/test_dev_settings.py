"""Ports are checked before anything starts."""

import socket

import pytest

from coordinator.dev.servers.ports import free_port
from coordinator.dev.settings import DevSettings, check_ports, load_settings
from coordinator.service.errors import ConfigurationError

SERVICES = ("users", "items", "payments")


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> DevSettings:
    """Every port a free one."""
    for name in DevSettings.model_fields:
        if name.endswith("_port"):
            monkeypatch.setenv(f"DEV_{name.upper()}", str(free_port()))
    return load_settings()


def test_free_ports_pass(settings: DevSettings) -> None:
    check_ports(settings, SERVICES)


@pytest.mark.parametrize(
    ("field", "title"),
    [
        ("postgresql_port", "PostgreSQL"),
        ("amqp_dist_port", "RabbitMQ's Erlang distribution"),
        ("items_port", "the gateway of items"),
        ("users_metrics_port", "the coordinator of users"),
        ("sandbox_port", "the sandbox payment provider"),
    ],
)
def test_a_port_in_use_is_named_with_its_setting(settings: DevSettings, field: str, title: str) -> None:
    port = getattr(settings, field)
    with socket.create_server(("127.0.0.1", port)):
        with pytest.raises(ConfigurationError) as caught:
            check_ports(settings, SERVICES)
        assert str(caught.value) == f"port {port} is in use ({title}); set DEV_{field.upper()} to a free one"


def test_servers_in_docker_publish_their_ports_themselves(settings: DevSettings) -> None:
    with socket.create_server(("127.0.0.1", settings.mysql_port)):
        check_ports(settings, SERVICES, servers=False)


def test_the_sandbox_needs_no_port_where_payments_go_elsewhere(settings: DevSettings) -> None:
    with socket.create_server(("127.0.0.1", settings.sandbox_port)):
        check_ports(settings, SERVICES, sandbox=False)


def test_a_port_given_twice_is_named(settings: DevSettings) -> None:
    settings.redis_port = settings.mysql_port
    with pytest.raises(ConfigurationError, match="given to both DEV_MYSQL_PORT and DEV_REDIS_PORT"):
        check_ports(settings, SERVICES)


def test_a_service_without_a_setting_gets_the_next_port(settings: DevSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.gateway_port("orders", 3) == 8084
    assert settings.metrics_port("orders", 3) == 9104
    monkeypatch.setenv("DEV_ORDERS_PORT", "8500")
    assert settings.gateway_port("orders", 3) == 8500
    monkeypatch.setenv("DEV_ORDERS_PORT", "many")
    with pytest.raises(ConfigurationError, match="DEV_ORDERS_PORT"):
        settings.gateway_port("orders", 3)
