"""Which addresses of RabbitMQ's direct reply-to an outcome is sent to: those after which 3.10 keeps the connection."""

import base64
import struct

import pytest

from coordinator.transports.rabbitmq.direct_reply import (
    DIRECT_REPLY,
    DIRECT_REPLY_PREFIX,
    ID_MAX,
    SERIAL_MAX,
    DirectReplies,
)
from tests.support.fake_broker import OWN_ADDRESS

PROCESS, KEY = OWN_ADDRESS.removeprefix(DIRECT_REPLY_PREFIX).split(".")
RAW = base64.b64decode(PROCESS)
CREATION = RAW[-4:]
OLD, NEW = "4.0.9", "4.1.0"


def address(process: bytes, key: str = KEY) -> str:
    return f"{DIRECT_REPLY_PREFIX}{base64.b64encode(process).decode()}.{key}"


def numbered(number: int, serial: int, creation: bytes = CREATION) -> str:
    return address(RAW[:-12] + struct.pack(">II", number, serial) + creation)


def on_node(node: bytes, tag: int = 118) -> str:
    size = struct.pack(">H", len(node)) if tag in (100, 118) else bytes([len(node)])
    return address(b"\x83X" + bytes([tag]) + size + node + RAW[-12:])


@pytest.mark.parametrize("version", [OLD, NEW])
@pytest.mark.parametrize(
    "name",
    [OWN_ADDRESS, numbered(0, 0), numbered(ID_MAX, SERIAL_MAX), address(RAW, base64.b64encode(b"k" * 16).decode())],
)
def test_the_addresses_of_this_node_s_channels_are_taken(name: str, version: str) -> None:
    assert DirectReplies(OWN_ADDRESS, version).takes(name)


@pytest.mark.parametrize("version", [OLD, NEW])
@pytest.mark.parametrize(
    "name",
    [
        "",
        DIRECT_REPLY,
        DIRECT_REPLY_PREFIX,
        f"{DIRECT_REPLY_PREFIX}.",
        f"{DIRECT_REPLY_PREFIX}a.b",
        f"{DIRECT_REPLY_PREFIX}aaaa.{KEY}",
        f"{DIRECT_REPLY_PREFIX}{PROCESS}",
        f"{DIRECT_REPLY_PREFIX}{PROCESS}.",
        f"{DIRECT_REPLY_PREFIX}{PROCESS}.{KEY}.{KEY}",
        f"{DIRECT_REPLY_PREFIX}{PROCESS}..{KEY}",
        f"{DIRECT_REPLY_PREFIX}{PROCESS[:-2]}.{KEY}",
        f"{DIRECT_REPLY_PREFIX}{PROCESS[:-3]}P==.{KEY}",
        f"{DIRECT_REPLY_PREFIX} {PROCESS}.{KEY}",
        f"{DIRECT_REPLY_PREFIX}{PROCESS}.{KEY}\n",
        f"{DIRECT_REPLY_PREFIX}{PROCESS}.\u00e9{KEY[1:]}",
        f"{DIRECT_REPLY_PREFIX}{PROCESS}.{KEY[:-2]}",
        f"x{OWN_ADDRESS}",
        OWN_ADDRESS.upper(),
        on_node(b"reply@1"),
        on_node(b"reply@99999999"),
        on_node(b"reply@x"),
        on_node(b"reply@"),
        on_node(b""),
        on_node(b"\xff\xfe"),
        *(on_node(b"reply@78531348", tag) for tag in (100, 115, 119)),
        numbered(1, 0, b"\0\0\0\0"),
        address(RAW + b"z"),
        address(RAW[:-1]),
        address(b"\x83h\x00"),
        address(b"\x83P" + RAW[2:]),
    ],
)
def test_no_other_address_is_taken(name: str, version: str) -> None:
    assert not DirectReplies(OWN_ADDRESS, version).takes(name)


@pytest.mark.parametrize(("number", "serial"), [(ID_MAX + 1, 0), (0, SERIAL_MAX + 1), (0xFFFFFFFF, 0), (0, 0xFFFFFFFF)])
def test_numbers_that_no_process_has_are_taken_only_where_they_are_harmless(number: int, serial: int) -> None:
    assert not DirectReplies(OWN_ADDRESS, OLD).takes(numbered(number, serial))
    assert not DirectReplies(OWN_ADDRESS, "").takes(numbered(number, serial))
    assert DirectReplies(OWN_ADDRESS, NEW).takes(numbered(number, serial))


@pytest.mark.parametrize("own", [None, "", "amq.rabbitmq.reply-to", f"{DIRECT_REPLY_PREFIX}x.y", address(b"12345678")])
def test_where_the_broker_makes_no_such_addresses_none_is_taken(own: str | None) -> None:
    assert not DirectReplies(own, OLD).takes(OWN_ADDRESS)
    assert not DirectReplies(own, OLD).takes(own or "")
