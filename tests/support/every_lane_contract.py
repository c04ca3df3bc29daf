"""All that a lane promises, whatever its store. Each store's tests inherit it, so a new promise is tried on all."""

from tests.support.actor_contract import ActorContract
from tests.support.allow_contract import AllowContract
from tests.support.audit_contract import AuditContract
from tests.support.continuation_contract import ContinuationContract
from tests.support.forget_contract import ForgetContract
from tests.support.lane_contract import LaneContract
from tests.support.letter_contract import LetterContract
from tests.support.lineage_contract import LineageContract
from tests.support.loss_contract import LossContract
from tests.support.origin_contract import OriginContract
from tests.support.release_contract import ReleaseContract
from tests.support.timer_contract import TimerContract
from tests.support.trace_contract import TraceContract


class EveryLaneContract(
    LaneContract,
    ContinuationContract,
    OriginContract,
    ActorContract,
    AllowContract,
    AuditContract,
    LetterContract,
    LineageContract,
    LossContract,
    TimerContract,
    ForgetContract,
    ReleaseContract,
    TraceContract,
):
    """The promises, one class for each subject."""
