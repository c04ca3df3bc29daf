"""docs/OPERATING.md lists every metric and every log event that the code has, as they are."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.support.operating import listed_metrics, rows

ROOT = Path(__file__).parents[2]
KINDS = {"Counter": "counter", "Gauge": "gauge", "Histogram": "histogram", "Summary": "summary", "Info": "info"}
LEVELS = {"debug", "info", "warning", "error", "critical"}


def modules() -> Iterator[ast.Module]:
    for folder in ("coordinator", "gateways", "shared"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield ast.parse(path.read_text())


def texts(node: ast.expr) -> list[str]:
    """The texts that an expression may be."""
    if isinstance(node, ast.IfExp):
        return texts(node.body) + texts(node.orelse)
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def metrics() -> dict[str, tuple[str, list[str]]]:
    """Kind and labels of every metric, by name."""
    found = {}
    for module in modules():
        kinds = {
            name.asname or name.name: KINDS[name.name]
            for node in ast.walk(module)
            if isinstance(node, ast.ImportFrom) and node.module == "prometheus_client"
            for name in node.names
            if name.name in KINDS
        }
        for node in ast.walk(module):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds:
                [name] = texts(node.args[0])
                labels = node.args[2] if len(node.args) > 2 else ast.List([], ast.Load())
                assert isinstance(labels, ast.List | ast.Tuple)
                found[name] = (kinds[node.func.id], [text for label in labels.elts for text in texts(label)])
    return found


def events() -> dict[str, set[str]]:
    """The levels of every event, by name.

    An event that a function is given as `event`, or that is a choice between two, is logged at the level at which its
    module logs a name instead of a text.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for module in modules():
        levels: set[str] = set()
        for call in (node for node in ast.walk(module) if isinstance(node, ast.Call)):
            level = logged_level(call)
            if level is not None and call.args:
                for event in texts(call.args[0]):
                    found[event].add(level)
                levels |= set() if texts(call.args[0]) else {level}
        if levels:
            for event in given_events(module):
                found[event] |= levels
    return found


def logged_level(call: ast.Call) -> str | None:
    called = call.func
    if not isinstance(called, ast.Attribute) or not isinstance(called.value, ast.Name) or called.value.id != "log":
        return None
    level = "error" if called.attr == "exception" else called.attr
    return level if level in LEVELS else None


def given_events(module: ast.Module) -> Iterator[str]:
    """What is passed for a parameter `event`, or assigned to a name `event`."""
    positions = {
        node.name: [argument.arg for argument in node.args.args if argument.arg != "self"].index("event")
        for node in ast.walk(module)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and "event" in {argument.arg for argument in node.args.args}
    }
    for node in ast.walk(module):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in positions and len(node.args) > positions[name]:
                yield from texts(node.args[positions[name]])
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "event":
            yield from texts(node.value)


def test_every_metric_is_listed_with_its_kind_and_labels() -> None:
    listed = listed_metrics()
    assert listed == metrics()
    assert len(listed) == len(rows("Metrics")) > 20


def test_every_log_event_is_listed_with_its_level() -> None:
    listed = {row[0].strip("`"): set(row[1].split(", ")) for row in rows("Log events")}
    assert listed == events()
    assert len(listed) == len(rows("Log events")) > 40
