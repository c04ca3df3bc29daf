"""COMMIT is recognised in the bytes of each database's protocol."""

import pytest

from tests.faults.proxy import CommitSpotter

BEGIN = b"Q\x00\x00\x00\x0aBEGIN\x00"
PARSE = b"P\x00\x00\x00\x16_pg3_4\x00COMMIT\x00\x00\x00"
BIND = b"B\x00\x00\x00\x14\x00_pg3_4\x00\x00\x00\x00\x00\x00\x01\x00\x00"
BIND_OTHER = b"B\x00\x00\x00\x14\x00_pg3_5\x00\x00\x00\x00\x00\x00\x01\x00\x00"


@pytest.mark.parametrize(
    "chunk",
    [
        b"Q\x00\x00\x00\x0bCOMMIT\x00",
        PARSE,
        b"\x07\x00\x00\x00\x03COMMIT",
        b"\x00\x00\x00\x00\x10commitTransaction\x00\x01\x00\x00\x00",
    ],
)
def test_a_commit_is_recognised(chunk: bytes) -> None:
    assert CommitSpotter().sees(chunk)


def test_a_prepared_commit_is_recognised_by_its_name() -> None:
    spotter = CommitSpotter()
    assert not spotter.sees(BEGIN)
    assert not spotter.sees(BIND)
    spotter.sees(PARSE)
    assert spotter.sees(BIND)
    assert not spotter.sees(BIND_OTHER)
