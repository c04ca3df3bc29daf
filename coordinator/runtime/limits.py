"""What all groups of settings have in common."""

from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator

from coordinator.runtime.longest_time import SECONDS_MAX, SECONDS_MIN


class Limits(BaseModel):
    """The rules of all groups: times are finite numbers, and limits fit each other."""

    # A process reads two or three of the groups: the others need no validators.
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, hide_input_in_errors=True, defer_build=True)

    @classmethod
    def shown(cls, field: str) -> str:
        """A setting's name in the environment."""
        return f"{dict(cls.model_config).get('env_prefix', '')}{field}".upper()

    @model_validator(mode="after")
    def _times_are_bounded(self) -> Self:
        for name, value in self:
            is_time = name.endswith(("_s", "_s_max")) and isinstance(value, int | float)
            if is_time and 0 < value < SECONDS_MIN:
                raise ValueError(
                    f"{self.shown(name)} ({value:g}) must be at least {SECONDS_MIN} s, or 0 where it may be"
                )
            if is_time and value > SECONDS_MAX:
                raise ValueError(f"{self.shown(name)} ({value:g}) must be at most {SECONDS_MAX} s")
        return self

    def _check_at_most(self, smaller: str, larger: str) -> None:
        one, other = getattr(self, smaller), getattr(self, larger)
        if one > other:
            raise ValueError(f"{self.shown(smaller)} ({one}) must not be above {self.shown(larger)} ({other})")
