"""Who may: the rules of a service's commands and rows.

A rule of a command is asked in the lane, in order, against the rows as they are then. It is asked of what comes from
outside: what the system does itself was allowed where it began.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias, TypeVar

from msgspec import Struct

from coordinator.service.commands import Command
from coordinator.service.principal import SCOPE_CHARACTERS_MAX, Principal, is_scope
from coordinator.service.reading import Reading
from coordinator.service.rows import Value

C = TypeVar("C", bound=Command)

CommandRule: TypeAlias = Callable[[Principal, C, Reading], bool]
"""Whether somebody may issue a command: `rule(who, command, rows)`. `rows` are as earlier commands have left them."""
RowsRule: TypeAlias = Callable[[Principal], bool | Mapping[str, Value]]
"""Which rows of a class somebody may read: all, none, or those with these values in the columns of an index."""
ServiceRule: TypeAlias = Callable[[Principal], bool]
"""Who may use what has no rule of its own."""

OPERATOR: Final = "operator"
"""The scope of those who may read the outcome of everybody's commands."""


def anybody(*_: object) -> bool:
    """The rule for what is open to all, also to those of whom nobody knows who they are."""
    return True


def any_principal(*_: object) -> bool:
    """The rule for what is open to everyone who has proved who he is."""
    return True


class HasScope(Struct, frozen=True):
    """The rule for those whose credential has a scope."""

    scope: str

    def __post_init__(self) -> None:
        """Raises ValueError for what no credential can have as a scope."""
        if not isinstance(self.scope, str) or not is_scope(self.scope):
            raise ValueError(
                f"has_scope({self.scope!r:.100}): a scope is a text of 1 to {SCOPE_CHARACTERS_MAX} visible ASCII "
                "characters without a space"
            )

    def __call__(self, who: Principal, *_: object) -> bool:
        """Whether it is among his."""
        return self.scope in who.scopes


def has_scope(scope: str) -> HasScope:
    """The rule for those whose credential has this scope: of a command, of rows, of a whole service.

    Raises ValueError for what no credential can have as a scope.
    """
    return HasScope(scope)


class AnyOf(Struct, frozen=True):
    """The rule for those whom one of several allows."""

    rules: tuple[Callable[..., Any], ...]

    def __call__(self, who: Principal, *asked: object) -> Any:  # whatever its rules say: of commands a bool
        """The first answer that is not False."""
        for rule in self.rules:
            if (answer := rule(who, *asked)) is not False:
                return answer
        return False


def any_of(*rules: Callable[..., Any]) -> AnyOf:
    """The rule for those whom one of these allows: `any_of(has_scope("staff"), own_account)`.

    They are rules of a command, or of rows, and are asked in this order: one that raises Rejected comes last. Raises
    ValueError for fewer than two.
    """
    if len(rules) < 2:  # noqa: PLR2004
        raise ValueError(f"any_of needs two rules or more, not {len(rules)}")
    return AnyOf(rules)


def scopes_named_by(rule: object) -> Iterator[str]:
    """The scopes that a rule asks for by `has_scope`, alone or among others."""
    if isinstance(rule, HasScope):
        yield rule.scope
    elif isinstance(rule, AnyOf):
        for each in rule.rules:
            yield from scopes_named_by(each)


def rule_for_commands(rule: ServiceRule) -> CommandRule[Any]:
    """A service's rule, as one of its commands."""
    if rule in (anybody, any_principal) or isinstance(rule, HasScope):
        return rule
    return lambda who, _command, _rows: rule(who)
