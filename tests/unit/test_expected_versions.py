"""A condition on the version of a row that has none is refused, and nothing is changed."""

from coordinator import Command, Row, Service, UnitOfWork
from coordinator.testing import LaneInMemory

flags = Service("flags")


@flags.row
class Flag(Row, table="flags", key="name"):
    name: str
    is_on: bool = False


class SwitchOn(Command, type="flags.switch_on"):
    name: str


@flags.handles(SwitchOn, target=lambda command: Flag.at(command.name))
def switch_on(work: UnitOfWork, command: SwitchOn) -> Flag:
    flag = work.get(Flag, command.name)
    return work.add(Flag(name=command.name, is_on=True)) if flag is None else work.save(flag.replace(is_on=True))


def test_a_row_without_a_version_has_none_that_could_be_expected() -> None:
    lane = LaneInMemory(flags)
    lane.given(Flag(name="a"))
    for name in ("a", "b"):
        tried = lane.apply(SwitchOn(name=name), expected_version=1)
        assert tried.rejected_with("expected_version_unsupported"), tried
    assert lane.rows(Flag) == [Flag(name="a")]
    assert lane.apply(SwitchOn(name="a")).applied
