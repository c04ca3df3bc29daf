"""A database that an operator's command does not reach is named by host and port, whatever its driver says."""

import pytest

from coordinator.operate.open import lane_admin
from coordinator.service.errors import DatabaseUnavailable


@pytest.mark.parametrize("scheme", ["mysql", "postgresql", "mongodb"])
def test_where_it_should_be_is_said(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USERS_DATABASE_URL", f"{scheme}://nobody:secret@127.0.0.1:9/users")
    with lane_admin("users") as admin, pytest.raises(DatabaseUnavailable) as raised:
        admin.sequence()
    assert "127.0.0.1:9" in str(raised.value)
    assert "secret" not in str(raised.value)
