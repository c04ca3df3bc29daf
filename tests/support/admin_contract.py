"""What an operator's commands are promised of a lane's database, on every kind that has one."""

from datetime import timedelta

import msgspec
import pytest

from coordinator.stores.admin import LaneAdmin
from coordinator.stores.lane_tables import LogEntry, ParkedCommand
from tests.support.store_contract import NOW, OpenStore, changes, commit, entry

YOUNG = NOW + timedelta(days=400)
CUTOFF = NOW + timedelta(days=7)


def settled(number: int, *, is_old: bool) -> LogEntry:
    return msgspec.structs.replace(entry(number), settled_at=NOW if is_old else YOUNG)


class AdminContract:
    @pytest.fixture
    def admin(self) -> LaneAdmin:
        """Of the database of `open_store`."""
        raise NotImplementedError

    def test_old_entries_are_pruned_behind_young_ones_too(self, open_store: OpenStore, admin: LaneAdmin) -> None:
        """For a while the lane's clock was in another year."""
        store = open_store()
        old = (1, 2, 8, 9, 13)
        rows = [settled(number, is_old=number in old) for number in range(1, 14)]
        commit(store, store.take_over("holder", NOW), changes(inserts=rows), 13)
        # The entry with the highest sequence stays.
        assert admin.settled_before(CUTOFF) == 4
        deleted = list(admin.prune(CUTOFF, 2))
        assert (sum(deleted), max(deleted)) == (4, 2)
        assert [number for number in range(1, 14) if admin.find(entry(number).command_id) is None] == [1, 2, 8, 9]
        assert (admin.settled_before(CUTOFF), sum(admin.prune(CUTOFF, 2))) == (0, 0)

    def test_parked_commands_come_in_their_order_and_without_what_they_hold(
        self, open_store: OpenStore, admin: LaneAdmin
    ) -> None:
        store = open_store()
        rows = [
            ParkedCommand(
                command_id=entry(10 - number).command_id,
                ordering_key="accounts.id=1",
                position=number,
                message=b"[]",
                fingerprint="f",
                reply_to=None,
                correlation_id=None,
                error_code="handler_error" if number == 1 else None,
                error_message=None,
                parked_at=NOW,
            )
            for number in (1, 2, 3)
        ]
        commit(store, store.take_over("holder", NOW), changes(inserts=rows))
        found = admin.parked()
        assert [row.command_id for row in found] == [row.command_id for row in rows]
        assert [row.error_code for row in found] == ["handler_error", None, None]
        assert {(row.ordering_key, row.parked_at) for row in found} == {("accounts.id=1", NOW)}
        assert not hasattr(found[0], "message")
