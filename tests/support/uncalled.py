"""Effects of a service whose calls a test answers, or that are never made."""

from coordinator.service.outside_calls import Effect, EffectHandler


class Uncalled:
    """Implements `Effects`: it has none."""

    handlers: tuple[EffectHandler[Effect], ...] = ()

    async def close(self) -> None: ...
