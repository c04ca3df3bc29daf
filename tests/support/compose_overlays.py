"""compose.yaml with another file laid over it, as `docker compose -f compose.yaml -f OVERLAY` reads them."""

from pathlib import Path
from typing import Any, Final

import yaml

from tests.support.compose_file import COMPOSE_FILE, interpolated, read_compose_file

CLUSTER_FILE: Final = COMPOSE_FILE.with_name("compose.cluster.yaml")
REDIS_FILE: Final = COMPOSE_FILE.with_name("compose.redis.yaml")


_REPLACED: Final = ("command", "entrypoint", "test")
"""The lists to which Compose does not add."""


class _Reset:
    """`!reset`: what is below is removed."""


class _Override(dict[str, Any]):
    """`!override`: it takes the place of what is below."""


class _Loader(yaml.SafeLoader):
    """Knows Compose's tags."""


def _override(loader: yaml.SafeLoader, node: yaml.MappingNode) -> _Override:
    loader.flatten_mapping(node)
    return _Override({str(key): value for key, value in loader.construct_mapping(node, deep=True).items()})


_Loader.add_constructor("!reset", lambda _loader, _node: _Reset())
_Loader.add_constructor("!override", _override)


def read_overlay(path: Path) -> dict[str, Any]:
    """The file by itself, with its variables."""
    read: dict[str, Any] = yaml.load(path.read_text(), _Loader)
    return read


def laid_over(path: Path) -> dict[str, Any]:
    """All of both, with the defaults of the variables."""
    merged: dict[str, Any] = interpolated(_merged(read_compose_file(), read_overlay(path)))
    return merged


def _merged(below: Any, above: Any, name: str = "") -> Any:
    if isinstance(above, _Override):
        return dict(above)
    if isinstance(below, dict) and isinstance(above, dict):
        kept = {key: value for key, value in below.items() if key not in above}
        new = {key: value for key, value in above.items() if not isinstance(value, _Reset)}
        return kept | {key: _merged(below.get(key), value, key) for key, value in new.items()}
    if isinstance(below, list) and isinstance(above, list) and name not in _REPLACED:
        return below + above
    return above
