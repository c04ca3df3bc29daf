"""Commands: validated value objects, one class per command type, and the types of their arguments."""

import re
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar, dataclass_transform

import msgspec
from msgspec import Meta, Struct

from coordinator.service.decimal_sizes import has_decimals, number_hook, size_checks
from coordinator.service.declared import DeclaredMeta, undescribed
from coordinator.service.descriptions import described
from coordinator.service.errors import InvalidCommand
from coordinator.service.finite import field_not_finite, may_lack_numbers
from coordinator.service.leaves import leaves
from coordinator.service.nesting import NESTING_MAX, is_too_deep
from coordinator.service.text import VISIBLE, has_blank_end, normalized, unseen_in

INTEGER_MAX = 2**53 - 1
"""The largest integer that every JSON parser reads exactly (RFC 8259, section 6)."""

AMOUNT_MAX = 10**12
"""The largest amount of one command, in minor units."""

Id = Annotated[int, Meta(ge=1, le=INTEGER_MAX)]
Amount = Annotated[int, Meta(ge=1, le=AMOUNT_MAX)]
Quantity = Annotated[int, Meta(ge=1, le=1_000_000)]
NAME_CHARACTERS_MAX = 200
"""The limit of a name as given and in its normal form."""

Name = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=NAME_CHARACTERS_MAX,
        pattern=VISIBLE,
        description="as given and in Unicode's form NFC, in which it is kept; each character can be seen, and no space "
        "is at an end",
    ),
]


if TYPE_CHECKING:
    # What a type checker needs to know of the metaclass below.
    @dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
    class _DeclaredCommand(Struct, frozen=True, kw_only=True):
        def __init_subclass__(
            cls,
            *,
            type: str = "",  # noqa: A002  # the name of the attribute
            version: int = 1,
            frozen: bool = True,
            kw_only: bool = True,
            forbid_unknown_fields: bool = True,
            omit_defaults: bool = False,
            rename: Any = None,
            array_like: bool = False,
        ) -> None: ...

else:

    class _CommandMeta(DeclaredMeta):
        keywords = ("type", "version")
        # A command may have a field `version`, such as that of a row.
        attributes = {"version": "command_version"}  # noqa: RUF012  # nobody changes it

    class _DeclaredCommand(Struct, metaclass=_CommandMeta):
        pass


class Command(_DeclaredCommand, forbid_unknown_fields=True):
    """One requested change to one database. The part of `type` before the dot names its lane.

    class BookSeat(Command, type="seats.book"):
        id: Id
        holder: Name

    `version=2` says that its arguments are no longer what they were; `Service.upgrades` makes these of the older ones.
    """

    type: ClassVar[str]
    command_version: ClassVar[int] = 1
    """The version of its arguments, as `version=` declares it."""

    @classmethod
    def lane(cls) -> str:
        """The service whose lane applies commands of this type. It is the lane's name, too, unless tenants have each a
        lane of their own."""
        return cls.type.partition(".")[0]

    def arguments(self) -> bytes:
        """Its arguments, as JSON text."""
        return msgspec.json.encode(self)


C = TypeVar("C", bound=Command)


def check_is_command(given: object) -> None:
    """Raise TypeError for what is no command, such as a command's class: whoever wrote the program is at fault."""
    if isinstance(given, Command):
        return
    if isinstance(given, type) and issubclass(given, Command):
        raise TypeError(f"{given.__name__} is a command's class: make a command of it, {given.__name__}(…)")
    raise TypeError(f"a command is meant, such as BookSeat(id=1), and {given!r:.100} was given")


class ClassFailed(InvalidCommand):
    """Raised where a command's own class raises what is no ValueError and no TypeError: a defect of it, most likely.

    Its text shows the type of the error only. `reason` is for operators: it has the error's text, too.
    """

    def __init__(self, model: type[Command], error: BaseException) -> None:
        text = f"the class of {model.type} raises {type(error).__name__} for these arguments"
        super().__init__(text, code="invalid_arguments")
        self.reason = described(error)


def version_sent(command: Command | type[Command]) -> int | None:
    """The version of its arguments as it travels with them: the first one goes without saying."""
    version = command.command_version
    return None if version == 1 else version


_NAME_SHOWN_MAX = 100
_PATTERN = re.compile(r"^Expected `str` matching regex '.*?'(?= - at|$)")
_FIELD = re.compile(r"at `\$\.?([^`]*+)`")
_NAMED = re.compile(r"(?:unknown|required) field `([^`]*+)`")


def parse(model: type[C], arguments: bytes | dict[str, Any]) -> C:
    """Make a command from its arguments, given as JSON text or as plain objects.

    Raises InvalidCommand, which names the argument at fault, and ClassFailed; nothing else, whatever the class does.
    """
    sizes = size_checks(model)
    if isinstance(arguments, bytes) and is_too_deep(arguments):
        raise _too_deep()
    try:
        if sizes is not None:
            sizes.sent(arguments)
        if isinstance(arguments, bytes):
            command = msgspec.json.decode(arguments, type=model)
        else:
            command = msgspec.convert(arguments, type=model)
    except InvalidCommand:
        raise
    except BaseException as error:  # noqa: BLE001  # whatever the command's own class does
        raise _refusal(model, arguments, error) from None
    if sizes is not None:
        sizes.made(command)
    return command


def _refusal(model: type[Command], arguments: bytes | dict[str, Any], error: BaseException) -> InvalidCommand:
    if isinstance(error, msgspec.ValidationError) and _has_text(error):
        if isinstance(arguments, bytes):
            _check_json(arguments)
        field = field_at_fault(error)
        text = _PATTERN.sub(lambda _: _form(arguments, field), str(error))
        return InvalidCommand(f"{text}{_choices(model, field, error)}", code="invalid_arguments", field=field)
    if isinstance(error, msgspec.DecodeError | UnicodeError) and not _is_json(arguments):
        # Where a text has half a surrogate pair, it depends on the type that is wanted whether that is noticed.
        return _malformed(arguments, error)
    return ClassFailed(model, error)


def argument_object(model: type[Command], arguments: bytes) -> dict[str, Any]:
    """Arguments of any version, as plain objects. Raises InvalidCommand unless they are a JSON object."""
    if is_too_deep(arguments):
        raise _too_deep()
    try:
        return _object_decoder(model).decode(arguments)
    except msgspec.ValidationError as error:
        _check_json(arguments)
        raise InvalidCommand(str(error), code="invalid_arguments") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(arguments, error) from None


@cache
def _object_decoder(model: type[Command]) -> "msgspec.json.Decoder[dict[str, Any]]":
    return msgspec.json.Decoder(dict[str, Any], float_hook=number_hook if has_decimals(model) else None)


def _too_deep() -> InvalidCommand:
    return InvalidCommand(f"the arguments are nested deeper than {NESTING_MAX} levels", code="malformed_json")


def repeated(name: str, field: str | None = None) -> InvalidCommand:
    """The refusal of JSON text in which an object has a name twice."""
    return InvalidCommand(
        f"an object has the name {name[:_NAME_SHOWN_MAX]!a} twice: readers differ in the value that counts",
        code="malformed_json",
        field=field,
    )


def _check_json(arguments: bytes) -> None:
    """The decoder stops at the first fault. Raises InvalidCommand if the rest of the text is not JSON."""
    try:
        msgspec.json.decode(arguments, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(arguments, error) from None


def _has_text(error: msgspec.ValidationError) -> bool:
    """Whether the error can be written out: a class may raise one of its own."""
    try:
        str(error)
    except BaseException:  # noqa: BLE001  # of the command's own class
        return False
    return True


def _is_json(arguments: bytes | dict[str, Any]) -> bool:
    """Whether they are JSON text, or can be written as such."""
    try:
        if isinstance(arguments, bytes):
            msgspec.json.decode(arguments)
        else:
            msgspec.json.encode(arguments)
    except (msgspec.DecodeError, UnicodeError):
        return False
    except Exception:  # noqa: BLE001  # of a value's own class
        return True
    return True


def _malformed(arguments: bytes | dict[str, Any], error: Exception) -> InvalidCommand:
    why = str(error) if arguments else "there are none, not even {}"
    return InvalidCommand(f"the arguments are not valid JSON: {why}", code="malformed_json")


def _form(arguments: bytes | dict[str, Any], field: str | None) -> str:
    """What is wrong with a text that does not match its pattern: nobody would find a character that cannot be seen."""
    try:
        given = msgspec.json.decode(arguments) if isinstance(arguments, bytes) else arguments
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # The decoder stopped before that.
        given = None
    value = given.get(field) if isinstance(given, dict) and field is not None else None
    wrong = "is not of the form that it must have"
    if not isinstance(value, str):
        return wrong
    if (unseen := unseen_in(value)) is not None:
        return f"{wrong}: it has the character {unseen}"
    return f"{wrong}: it begins or ends with a space" if has_blank_end(value) else wrong


def _choices(model: type[Command], field: str | None, error: msgspec.ValidationError) -> str:
    """The allowed values, if the error is about a value that is not one of them."""
    if not str(error).startswith("Invalid enum value"):
        return ""
    values = [
        str(value)
        for each in msgspec.inspect.type_info(model).fields  # type: ignore[attr-defined]  # a Struct has them
        if each.encode_name == field and isinstance(kind := undescribed(each.type), msgspec.inspect.LiteralType)
        for value in kind.values
    ]
    return f"; there are {', '.join(values)}" if values else ""


def encoded(command: Command) -> bytes:
    """The arguments of a command that `parse` has made, as JSON text.

    Raises InvalidCommand if JSON text cannot express them, or only with more levels than it may have.
    """
    arguments = _json(command)
    if is_too_deep(arguments):
        raise _too_deep()
    return arguments


def check_storable(command: Command, arguments: bytes) -> None:
    """Raise InvalidCommand, which names the argument, for a text with a NUL, which no database keeps.

    For doors to strangers: what the system itself has sent is applied, and its handlers keep a part of it (`storable`).
    """
    # JSON text has no other way to write it.
    if b"\\u0000" not in arguments:
        return
    for field in msgspec.structs.fields(command):
        if any(isinstance(each, str) and "\0" in each for each in leaves(getattr(command, field.name))):
            text = f"{command.type}: {field.encode_name} has the character U+0000, which no database keeps"
            raise InvalidCommand(text, code="invalid_arguments", field=field.encode_name)


def validated(command: C) -> tuple[C, bytes]:
    """Check a command that was built in code, and return it with its arguments as JSON text.

    Raises InvalidCommand.
    """
    arguments = _json(command)
    return parse(type(command), arguments), arguments


def _json(command: Command) -> bytes:
    try:
        arguments = msgspec.json.encode(command)
        # Nobody has checked yet that there is none where the class has no floats.
        if may_lack_numbers(arguments) and (found := field_not_finite(command)) is not None:
            field, value = found
            text = f"{command.type}: {field} has {value}, and JSON has no such number"
            raise InvalidCommand(text, code="invalid_arguments", field=field)
    except RecursionError:
        raise _endless(command) from None
    except (TypeError, ValueError, OverflowError, UnicodeEncodeError) as error:
        raise InvalidCommand(f"{command.type}: {error}") from None
    return arguments


def _endless(command: Command) -> InvalidCommand:
    """The refusal of a value that is within itself, or that is nested deeper than Python can go."""
    field = next((name for name in command.__struct_fields__ if _is_endless(getattr(command, name))), None)
    text = f"{command.type}: {field or 'one of its fields'} has a value within itself, or is nested too deep"
    return InvalidCommand(text, code="invalid_arguments", field=field)


def _is_endless(value: object) -> bool:
    try:
        msgspec.json.encode(value)
    except RecursionError:
        return True
    except Exception:  # noqa: BLE001  # another field is at fault, too
        return False
    return False


def at_fault(field: str, message: str) -> ValueError:
    """The error that a command's `__post_init__` raises for a fault that no type can express; it names the argument.

    If a handler stores a value derived from an argument, that value has limits too: check them there, so that every
    door does.
    """
    return ValueError(f"{message} - at `$.{field}`")


def check_normalized(field: str, text: object, characters_max: int = NAME_CHARACTERS_MAX) -> None:
    """Raise ValueError, naming the field, for a text that has too many characters in its normal form (`normalized`)."""
    if isinstance(text, str) and not text.isascii() and (characters := len(normalized(text))) > characters_max:
        raise at_fault(
            field, f"Expected at most {characters_max} characters in the form NFC of Unicode, not {characters}"
        )


def field_at_fault(error: msgspec.ValidationError) -> str | None:
    """The path of the field that the error is about, such as `amount`; None if it is about the whole."""
    text = str(error)
    found = _FIELD.search(text) or _NAMED.search(text)
    return found.group(1) if found else None
