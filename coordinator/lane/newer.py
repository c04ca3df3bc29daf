"""Commands that this process does not know, by their type or their version, and that a newer release has announced.

`coordinator migrate` of a release announces in the lane's database which commands the release knows, in which versions.
From then on anybody may send them. A process of the release before keeps such a command, and all behind it, for one
that knows it: it settles what came before, and gives the lane up. Any other unknown command is that command's failure,
and so is one that no gateway has sent, where the lane knows which those are: it waits as a dead letter, and nobody else
waits for it. So is what the public sends of a type that only the system may issue: the newer release refuses it.
An announcement stays until an operator withdraws it: each transaction reads those of its commands.
"""

from collections.abc import Iterable

from coordinator.lane.basis import Outdated
from coordinator.lane.request import UNKNOWN_TYPE, Request
from coordinator.lane.unit_of_work import BatchWork
from coordinator.service.rows import Ref, Row
from coordinator.service.targets import Targets
from coordinator.stores.lane_tables import AnnouncedVersion


def announcement_refs(requests: Iterable[Request]) -> list[Ref[Row]]:
    """What releases may have announced of commands that are not known here; anybody may send any number of types."""
    return [AnnouncedVersion.at(type=request.message.type or "") for request in requests if request.is_newer]


def is_announced(work: BatchWork, request: Request) -> bool:
    """Whether a newer release has announced this command, which it may know (`Request.is_newer`), and may apply it."""
    message = request.message
    announced = work.get(AnnouncedVersion, message.type or "")
    if announced is None or announced.version < (message.command_version or 1):
        return False
    return message.origin == "system" or announced.origin != "system"


def outdated_by(request: Request, targets: Targets) -> Outdated:
    """Why a newer process must apply this command, which is announced."""
    message = request.message
    kind, version = message.type or "", message.command_version or 1
    lane = targets.of(kind.partition(".")[0])
    if request.defect is not None and request.defect.code == UNKNOWN_TYPE:
        what, withdrawn = f"is of type {kind}", kind
    else:
        what, withdrawn = f"({kind}) has version {version}", f"{kind}={version - 1}"
    return Outdated(
        f"command {message.command_id} {what}, which a newer release has announced: a coordinator of that release must "
        f"take the lane over (where none is left: `coordinator migrate {lane} --withdraw {withdrawn}`)"
    )
