"""Types as JSON Schema (2020-12), in its own terms: what msgspec makes of them, made portable."""

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from inspect import cleandoc
from typing import Any, Final, TypeAlias, get_args, get_origin

import msgspec
from msgspec import Struct

from coordinator.service.commands import Command
from coordinator.service.service import Service
from coordinator.service.upgrades import Upgrade, known_versions

Json: TypeAlias = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_DECIMAL: Final = r"^-?[0-9]+(\.[0-9]+)?$"
"""As we write it; what is sent may have an exponent, too, as numbers of JSON have."""
_BEYOND: Final = re.compile(r"\\U([0-9a-f]{8})")


class TypeSchemas:
    """The schemas of some types: each by itself, and `components` by name, to which they refer.

    All of them are made at once, so that two classes of one name have two names here.
    """

    def __init__(self, types: Sequence[Any], ref_template: str) -> None:
        self._types = tuple(types)
        try:
            schemas, components = _components(self._types, ref_template)
        except (TypeError, NameError):
            # One of them is an author's that has none: nothing is said of that one, and all of the others.
            known = [each if _has_schema(each) else Any for each in self._types]
            schemas, components = _components(known, ref_template)
        dated = {model.__name__: set(_times_of(model)) for model in structs_in(self._types)}
        self._schemas: tuple[Json, ...] = tuple(portable(each) for each in schemas)
        self.components: dict[str, Json] = {
            name: with_times(portable(each), dated.get(name, set())) for name, each in sorted(components.items())
        }

    def of(self, kind: Any) -> Json:
        """The schema of one of the types: the same object."""
        return next(schema for schema, each in zip(self._schemas, self._types, strict=True) if each is kind)


def schema_of(kind: type[Any]) -> Json:
    """The schema of a type by itself, with all that it refers to in `$defs`."""
    made = TypeSchemas([kind], "#/$defs/{name}")
    (own,), components = [made.of(kind)], made.components
    name = own.get("$ref", "").removeprefix("#/$defs/")
    if name in components:
        own = {**components[name]}
        if not any(f"#/$defs/{name}" == each for each in references_in([own, *components.values()])):
            components = {other: each for other, each in components.items() if other != name}
    return {"$schema": DIALECT, **own, **({"$defs": components} if components else {})}


def schema_of_version(command: type[Command], version: int, upgrades: Sequence[Upgrade]) -> Json:
    """The schema of a command's arguments in a version that is known here, given the command's upgrades in order."""
    if version == command.command_version:
        return schema_of(command)
    upgrade = upgrades[version - known_versions(command, upgrades)[0]]
    said = cleandoc(upgrade.change.__doc__ or "")
    text = f"Version {version} of {command.type}, of which version {version + 1} is made." + (said and f" {said}")
    if upgrade.arguments is None:
        return {"$schema": DIALECT, "type": "object", "description": text}
    made = schema_of(upgrade.arguments)
    return made if "description" in made else {**made, "description": text}


def schemas_of(services: Iterable[Service]) -> Json:
    """The JSON Schemas of all commands that anybody may send to these services, by type and version."""
    return {
        handler.command.type: {
            str(version): schema_of_version(handler.command, version, handler.upgrades)
            for version in known_versions(handler.command, handler.upgrades)
        }
        for service in services
        for handler in service.public_handlers
    }


def _components(types: Sequence[Any], ref_template: str) -> tuple[tuple[Json, ...], dict[str, Json]]:
    return msgspec.json.schema_components(types, schema_hook=_any_json, ref_template=ref_template)


def _has_schema(kind: Any) -> bool:
    try:
        _components([kind], "{name}")
    except (TypeError, NameError):
        return False
    return True


def _any_json(_kind: type) -> Json:
    """Of a type of an author's own there is no schema."""
    return {}


def structs_in(types: Iterable[Any]) -> list[type[Struct]]:
    """The classes of these types, and of what is in them, in the order in which they are met."""
    found: dict[type[Struct], None] = {}

    def meet(kind: Any) -> None:
        for part in get_args(kind):
            meet(part)
        if isinstance(kind, type) and issubclass(kind, Struct) and get_origin(kind) is None and kind not in found:
            found[kind] = None
            for field in msgspec.structs.fields(kind):
                meet(field.type)

    for each in types:
        meet(each)
    return list(found)


def _times_of(model: type[Struct]) -> Iterator[str]:
    """The fields that are times: msgspec calls one that may have no zone plain text. Those of rows have one."""
    for field in msgspec.structs.fields(model):
        if datetime in (field.type, *get_args(field.type)):
            yield field.encode_name


def with_times(schema: Json, names: Iterable[str]) -> Json:
    """The schema of an object whose properties of these names are times."""
    properties = schema.get("properties", {})
    for name in names:
        for part in (properties.get(name, {}), *properties.get(name, {}).get("anyOf", ())):
            if part.get("type") == "string":
                part["format"] = "date-time"
    return schema


def portable(schema: Any) -> Any:
    """What msgspec made, in JSON Schema's own terms.

    Its regular expressions are ECMAScript's, which has no \\A and \\Z; there ^ and $ mean just that. Readers
    differ in how a character beyond U+FFFF is escaped, so it stands there itself.
    """
    if isinstance(schema, list):
        return [portable(element) for element in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: portable(value) for key, value in schema.items()}
    if made.get("format") == "decimal" and made.get("type") == "string":
        made.setdefault("pattern", _DECIMAL)
    if isinstance(made.get("pattern"), str):
        pattern = made["pattern"].replace(r"\A", "^").replace(r"\Z", "$")
        made["pattern"] = _BEYOND.sub(lambda found: chr(int(found.group(1), 16)), pattern)
    if isinstance(made.get("description"), str):
        made["description"] = cleandoc(made["description"])
    return made


def references_in(schema: Any) -> Iterator[str]:
    """What a schema, or a document with some, refers to."""
    if isinstance(schema, list):
        for element in schema:
            yield from references_in(element)
    elif isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for element in schema.values():
            yield from references_in(element)
