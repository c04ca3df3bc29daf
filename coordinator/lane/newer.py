"""Commands of a version that this process does not know, and that a newer release has announced.

`coordinator migrate` of a release announces in the lane's database which versions of its commands the release knows.
From then on anybody may send them. A process of the release before keeps such a command, and all behind it, for one
that knows it: it settles what came before, and gives the lane up. Any other unknown version is that command's failure.
"""

from coordinator.lane.basis import Outdated
from coordinator.lane.request import Request
from coordinator.lane.unit_of_work import BatchWork
from coordinator.stores.lane_tables import AnnouncedVersion


def outdated_by(work: BatchWork, request: Request) -> Outdated | None:
    """Why a newer process must apply this command, whose version is not known here; None: nobody announced it."""
    message = request.message
    announced = work.get(AnnouncedVersion, message.type or "")
    if announced is None or announced.version < (message.command_version or 1):
        return None
    return Outdated(
        f"command {message.command_id} ({message.type}) has version {message.command_version}, which a newer release "
        "has announced: a coordinator of that release must take the lane over"
    )
