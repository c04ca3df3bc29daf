"""Which rights on all databases of a MySQL make an administrator for `coordinator guard`."""

from collections.abc import Iterator

import pytest

from coordinator.stores.mysql import foreign_rights
from coordinator.stores.mysql.global_rights import GlobalRight

WHO = "'copies'@'%'"


@pytest.mark.parametrize(
    ("right", "is_administrators"),
    [("CLONE_ADMIN", True), ("GROUP_REPLICATION_ADMIN", True), ("BACKUP_ADMIN", False)],
)
def test_who_puts_other_data_in_the_place_of_these_is_an_administrator(
    right: str, is_administrators: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These rights are MySQL's, and MariaDB has none of them. Who copies what is here writes nothing."""

    def global_rights(_connection: object, *, with_roles: bool) -> Iterator[GlobalRight]:
        assert with_roles
        yield GlobalRight(WHO, right, is_grantable=False)

    monkeypatch.setattr(foreign_rights, "global_rights", global_rights)
    found = foreign_rights._everywhere(None, ("users",))  # type: ignore[arg-type]  # the rights are given
    assert [(each.who, each.does) for each in found if each.is_administrators] == [(WHO, right)] * is_administrators
    assert len(found) == is_administrators
