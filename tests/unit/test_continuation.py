"""Continuations that were put off: as a text in a row, also of an older release."""

from coordinator.service.continuation import Deferred, continued
from coordinator.service.options import Options


def test_what_was_put_off_before_origins_were_known_is_the_system_s() -> None:
    """A purchase under way at an upgrade goes on."""
    deferred = Deferred.decode("0b0e7b6e-6d4e-4a57-9a5e-3f5d9f3c9b11 payments.open users.continue_purchase")
    assert deferred.origin == "system"
    assert Deferred.decode(deferred.encode()) == deferred
    public = Deferred(command_id="c", type="a.b", continuation="c.d", origin="public")
    assert Deferred.decode(public.encode()) == public
    assert continued(public, "applied", None, None).options == Options(origin="public")
