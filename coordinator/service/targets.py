"""To whom a lane emits: which lane, or whose effects, a command's type means."""

from collections.abc import Collection
from typing import Final

from coordinator.service.lane_names import TENANT_SIGN, lane_of, service_of, tenant_of
from coordinator.service.outside_calls import EFFECTS_PREFIX, effects_key


class Targets:
    """The lanes and effects to which a lane can emit.

    What the lane of a tenant emits stays with the tenant, where the other service has a lane for him. It goes to the
    service's only lane otherwise.
    """

    __slots__ = ("_has_effects", "_of_tenant", "_own_effects", "_tenant", "known", "scope")

    def __init__(self, lane: str, known: Collection[str] | None, *, has_effects: bool = True) -> None:
        """`known` are all of them; None: they are not known here, and commands can be emitted to any.

        `has_effects`: the lane's own service makes calls to the outside. Where `known` says so, that counts.
        """
        self._own_effects = effects_key(lane)
        self._has_effects = has_effects
        self.known = known
        self._tenant = tenant = tenant_of(lane)
        self.scope = "" if tenant is None else f"{lane} "
        """What tells the lane's commands from those that have the same type and id in another tenant's lane."""
        self._of_tenant: dict[str, str] = {}
        if tenant is not None:
            own = service_of(lane)
            end = f"{TENANT_SIGN}{tenant}"
            self._of_tenant = {target.removesuffix(end): target for target in known or () if target.endswith(end)}
            self._of_tenant |= {own: lane, effects_key(own): effects_key(lane)}

    def of(self, service: str) -> str:
        """The lane of a service, or the key of its effects, that is meant by the lane's commands."""
        return self._of_tenant.get(service, service)

    def check(self, kind: str, target: str) -> None:
        """Raises ValueError if a command of this type cannot be emitted there."""
        if not self._has(target):
            raise ValueError(f"{kind}: {self._lack_of(target)}")

    def has_answers_of(self, target: str) -> bool:
        """Whether outcomes go from one to the other: both are of one tenant, or of none."""
        return tenant_of(target) == self._tenant

    def check_answer(self, kind: str, target: str) -> None:
        """Raises ValueError where the outcome of a command would go from a tenant's lane to another's, or come from it.

        A lane that several tenants share does not know whose answer it has. Raises TypeError for an effect: nobody
        would send its outcome.
        """
        if target.startswith(EFFECTS_PREFIX):
            raise TypeError(
                f"{kind}: an effect has no outcome. Its EffectHandler returns the command with its result: have a "
                "command of the service emit the effect, take work.defer(), and the handler of the result call "
                "work.resume"
            )
        if not self.has_answers_of(target):
            mine = "no tenant" if self._tenant is None else f"tenant {self._tenant}"
            raise ValueError(
                f"{kind}: no answer goes between lane {target}, and this one, of {mine}: give that service a lane for "
                "the tenant, or emit the command without a continuation"
            )

    def _has(self, target: str) -> bool:
        if self.known is None:
            return self._has_effects or target != self._own_effects
        return target in self.known

    def _lack_of(self, target: str) -> str:
        """Why nothing can be emitted there."""
        if not target.startswith(EFFECTS_PREFIX):
            return f"there is no lane {target!r} here{self._tenants_of(target) or self._others()}"
        service = target.removeprefix(EFFECTS_PREFIX)
        if target == self._own_effects:
            name = service_of(service)
            return f'nobody makes the calls of {name}: give the service its effects, Service("{name}", effects=…)'
        return (
            f"no service {service!r} that makes calls to the outside is here: the type of an effect begins with the "
            "name of the service that has its EffectHandler"
        )

    def _others(self) -> str:
        there = ", ".join(sorted(each for each in self.known or () if not each.startswith(EFFECTS_PREFIX)))
        return f"; there are {there}: name its service in COORDINATOR_APP, or in the entry points of pyproject.toml"

    def _tenants_of(self, service: str) -> str:
        lanes = sorted(each for each in self.known or () if each.startswith(lane_of(service, "")))
        return f": it has one for each of its tenants, such as {lanes[0]}" if lanes else ""


ANYWHERE: Final = Targets("", None)
"""Those of a lane that knows of no tenants, and not which lanes there are."""
