"""`coordinator status` of a lane that is being moved."""

from contextlib import closing

from coordinator.operate.kept_lanes import KEPT
from coordinator.stores.moves import LaneMove
from coordinator.stores.open import open_admin
from tests.unit.test_operate_letters import START, World, world

__all__ = ["world"]


def test_status_says_how_far_a_move_is(world: World) -> None:
    move = LaneMove(id="m", step="noting", other="sqlite:///new.db", since=START, phase="it copies users")
    with closing(open_admin(world.environment["USERS_DATABASE_URL"], "users")) as admin:
        assert admin.set_move(None, move, START)
    ran = world.run("status", "users", "--sample-s", 0, expect=1)
    assert "being copied to sqlite:///new.db, for " in ran.stdout
    assert ": it copies users; 0 transactions of the lane since it began" in ran.stdout
    (status,) = world.json("status", "users", "--sample-s", 0, expect=1)
    shown = status["move"]
    assert (shown["step"], shown["phase"], shown["noted"]) == ("noting", "it copies users", 0)
    page = world.json("top", "users", "--rounds", 1)["users"]
    assert page["move"].startswith("being copied to sqlite:///new.db, for ")


def test_a_lane_that_has_moved_is_said_to_be_elsewhere_and_not_to_be_paused(world: World) -> None:
    moved = LaneMove(id="m", step="moved", other="sqlite:///new.db", since=START, phase="the switch may begin")
    with closing(open_admin(world.environment["USERS_DATABASE_URL"], "users")) as admin:
        assert admin.set_move(None, moved, START)
    (status,) = world.json("status", "users", "--sample-s", 0, expect=1)
    assert (status["state"], status["is_paused"]) == ("moved", True)
    assert status["why"] == "it has moved to sqlite:///new.db: nothing is written here any more; set its address"
    assert status["state"] in KEPT
    shown = world.json("top", "users", "--rounds", 1)["users"]
    assert (shown["state"], shown["why"]) == ("moved", status["why"])
