"""What docs/ says of the code is so: settings, wire protocol, error codes, examples."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import click
import jsonschema
import msgspec
import pytest
from click.testing import CliRunner
from pydantic_settings import BaseSettings

from coordinator.cli import cli
from coordinator.dev.supervisor import DEATHS_MAX, DEATHS_WINDOW_S
from coordinator.documents import generated as documentation
from coordinator.documents import unit_of_work
from coordinator.documents.asyncapi import document
from coordinator.migrations.migrate import migrate
from coordinator.protocol import actors, tracestates, wire
from coordinator.protocol.decoding import decode
from coordinator.protocol.fields import FIELDS
from coordinator.protocol.outcomes import encode_outcome
from coordinator.protocol.wire import CommandMessage, Envelope
from coordinator.registry import registry
from coordinator.runtime.loading import FILE, is_secret
from coordinator.runtime.misspelt import OPTIONS
from coordinator.runtime.settings import DatabaseSettings
from coordinator.service.commands import parse
from coordinator.service.errors import InvalidCommand
from coordinator.service.ids import system_command_id
from coordinator.service.outcome import FORGOTTEN, Outcome
from coordinator.stores import port  # noqa: F401  # every module with settings is imported by now
from coordinator.transports.rabbitmq.ingress.topology import ingress_name
from coordinator.transports.rabbitmq.topology import DEAD_EXCHANGE, SYSTEM_EXCHANGE, WRITES_EXCHANGE, queue_name

ROOT = Path(__file__).parents[2]
SCHEMAS = Path(__file__).parent / "schemas"
PROTOCOL = (ROOT / "docs" / "PROTOCOL.md").read_text()
OPERATING = (ROOT / "docs" / "OPERATING.md").read_text()
HTTP = (ROOT / "docs" / "HTTP.md").read_text()
ASYNCAPI: dict[str, Any] = json.loads((ROOT / "docs" / "asyncapi.json").read_text())
HANDLERS = [handler for service in registry().services for handler in service.public_handlers]
FULL = CommandMessage(
    command_id="0b0e7b6e-6d4e-4a57-9a5e-3f5d9f3c9b11",
    type="users.create",
    arguments=b'{"name":"Ada","email":"ada@example.org"}',
    deadline_ms=1,
    expected_version=2,
    publisher="p",
    publisher_seq=3,
    traceparent="t",
    continuation="users.credit",
    command_version=2,
)


@pytest.mark.parametrize("path", sorted(documentation.generated()), ids=lambda path: path.name)
def test_generated_documentation_is_not_stale(path: Path) -> None:
    assert path.read_text() == documentation.generated()[path], "run: python -m coordinator.documents.generated --write"


def test_a_stale_file_is_named_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "OPERATING.md").write_text(f"before\n{documentation.BEGIN}\nold\n{documentation.END}\nafter\n")
    (docs / "HTTP.md").write_text(f"before\n{documentation.BEGIN_CODES}\nold\n{documentation.END_CODES}\nafter\n")
    (docs / "API.md").write_text(f"before\n{unit_of_work.BEGIN}\nold\n{unit_of_work.END}\nafter\n")
    monkeypatch.setattr(documentation, "DOCS", docs)
    found = CliRunner().invoke(documentation.main, [])
    assert found.exit_code == 1
    assert found.output.splitlines() == [
        *("docs/OPERATING.md is stale", "docs/HTTP.md is stale", "docs/API.md is stale"),
        *("docs/asyncapi.json is stale", "docs/HTTP_API.md is stale"),
    ]
    assert CliRunner().invoke(documentation.main, ["--write"]).exit_code == 0
    for name in ("OPERATING.md", "HTTP.md", "API.md"):
        text = (docs / name).read_text()
        assert text.startswith("before\n")
        assert text.endswith("\nafter\n")
        assert "old\n" not in text
    assert CliRunner().invoke(documentation.main, []).exit_code == 0


def test_settings_without_markers_are_refused() -> None:
    with pytest.raises(ValueError, match="needs the two lines"):
        documentation.operating("no markers here")


def test_every_group_of_settings_is_documented() -> None:
    ours = {
        group
        for group in BaseSettings.__subclasses__()
        if group.__module__.partition(".")[0] in ("shared", "coordinator")
    }
    assert ours == {group for group, _ in documentation.groups()}


def test_every_setting_has_a_meaning() -> None:
    silent = [
        f"{group.__name__}.{name}"
        for group, _ in documentation.groups()
        for name, field in group.model_fields.items()
        if not field.description
    ]
    assert silent == []


@pytest.mark.parametrize("text", [PROTOCOL, OPERATING, HTTP], ids=["PROTOCOL.md", "OPERATING.md", "HTTP.md"])
def test_settings_that_are_named_exist(text: str) -> None:
    groups = dict(documentation.groups())
    known = {
        f"{prefix}{name.upper()}"
        for group in groups
        for name in (
            *group.model_fields,
            *(f"{name}{FILE}" for name, field in group.model_fields.items() if is_secret(field)),
        )
        for prefix in ([group.model_config.get("env_prefix")] if group.model_config.get("env_prefix") else PER_SERVICE)
    }
    known |= {each.setting for each in documentation.dev_ports()}
    known |= OPTIONS
    prefixes = "AMQP|LANE|REDIS|GATEWAY|OPERATIONS|TELEMETRY|DEV|STRIPE|EFFECTS|USERS|ITEMS|PAYMENTS"
    named = set(re.findall(rf"`((?:{prefixes})_[A-Z_]+)`", text))
    assert named - known - set(re.findall(r"\$\{([A-Z_]+):-", (ROOT / "compose.yaml").read_text())) == set()


PER_SERVICE = [f"{service.name.upper()}_" for service in registry().services]


@pytest.mark.parametrize("text", [PROTOCOL, OPERATING, HTTP], ids=["PROTOCOL.md", "OPERATING.md", "HTTP.md"])
def test_commands_that_are_named_exist(text: str) -> None:
    named = set(re.findall(r"`(?:python -m )?coordinator ([a-z-]+)", text))
    assert named <= set(cli.list_commands(click.Context(cli)))


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_commands_that_are_printed_have_the_options_that_they_need(path: Path) -> None:
    context = click.Context(cli)
    lacking = []
    for block in re.findall(r"^```[a-z]*\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL):
        for name, rest in re.findall(r"^(?:[A-Z_]+=\S+ )*coordinator ([a-z-]+)(.*)", block, re.MULTILINE):
            command = cli.get_command(context, name)
            assert command is not None, name
            lacking += [
                f"coordinator {name}{rest}"
                for each in command.params
                if isinstance(each, click.Option) and each.required and not {*each.opts} & {*rest.split()}
            ]
    assert lacking == []


def test_metrics_and_log_events_that_are_named_exist() -> None:
    code = "".join(path.read_text() for path in (ROOT / "coordinator").rglob("*.py"))
    named = re.findall(r"`(lane_[a-z_]+|dead_letter_not_taken|broker_connection_lost)`", OPERATING)
    named += re.findall(r'"(broker_connection_lost)"', (ROOT / "coordinator/transports/reconnecting.py").read_text())
    code += (ROOT / "coordinator/transports/reconnecting.py").read_text() + (
        ROOT / "coordinator/stores/lane_tables.py"
    ).read_text()
    assert len(named) > 5
    assert [name for name in named if f'"{name}"' not in code] == []


def test_asyncapi_is_valid_by_its_specification() -> None:
    schema = json.loads((SCHEMAS / "asyncapi-3.1.0.json").read_text())
    jsonschema.Draft7Validator(schema).validate(ASYNCAPI)


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for value in node.values() for found in references(value)]
    return [found for value in node for found in references(value)] if isinstance(node, list) else []


def resolved(reference: str) -> Any:
    node: Any = ASYNCAPI
    for part in reference.removeprefix("#/").split("/"):
        node = node[part]
    return node


def test_asyncapi_refers_to_nothing_that_is_missing() -> None:
    found = references(ASYNCAPI)
    assert len(found) > 50
    for reference in found:
        resolved(reference)


def test_asyncapi_is_the_same_every_time_and_grows_with_the_services() -> None:
    assert document(registry().services) == document(registry().services)
    assert "items.create" not in document(registry().services[:1])["operations"]


def test_asyncapi_has_every_command_and_the_queues_of_every_lane() -> None:
    for handler in HANDLERS:
        operation = ASYNCAPI["operations"][handler.command.type]
        assert operation["channel"] == {"$ref": f"#/channels/{handler.command.lane()}"}
        [message] = [resolved(resolved(reference["$ref"])["$ref"]) for reference in operation["messages"]]
        assert message["bindings"]["amqp"]["messageType"] == handler.command.type
    for service in registry().services:
        assert ASYNCAPI["channels"][service.name]["address"] == queue_name(service.name)
        assert ASYNCAPI["channels"][service.name]["x-exchange"] == WRITES_EXCHANGE
        assert ASYNCAPI["channels"][service.name]["x-system-exchange"] == SYSTEM_EXCHANGE
    assert ASYNCAPI["channels"]["effects.payments"]["x-exchange"] == SYSTEM_EXCHANGE
    outside = ingress_name("{account}")
    assert set(ASYNCAPI["x-exchanges"]) == {WRITES_EXCHANGE, SYSTEM_EXCHANGE, DEAD_EXCHANGE, outside}


def test_asyncapi_has_what_an_outside_publisher_may_send() -> None:
    channel, operation = ASYNCAPI["channels"]["ingress"], ASYNCAPI["operations"]["ingress"]
    assert (channel["address"], channel["x-exchange"]) == (ingress_name("{account}"),) * 2
    assert channel["x-routing-keys"] == [service.name for service in registry().services]
    assert set(channel["messages"]) == {"pack", *(handler.command.type for handler in HANDLERS)}
    assert len(operation["messages"]) == len(operation["reply"]["messages"]) == len(channel["messages"])


def schema_named(name: str) -> jsonschema.Draft202012Validator:
    """A schema of the document, with the components it refers to."""
    return jsonschema.Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": ASYNCAPI["components"]},
        format_checker=jsonschema.FormatChecker(),
    )


EXAMPLES: list[tuple[str, dict[str, Any]]] = [
    ("users.create", {"name": "Ada", "email": "ada@example.org"}),
    ("users.create", {"name": "", "email": "ada@example.org"}),
    ("users.create", {"name": "A\x07", "email": "ada@example.org"}),
    ("users.create", {"name": "Ada", "email": "nobody"}),
    ("users.create", {"name": "Ada", "email": "ada@example.org", "credit": 1}),
    ("users.create", {"name": "Ada"}),
    ("users.update", {"id": 1}),
    ("users.update", {"id": 0}),
    ("users.update", {"id": 1, "name": None}),
    ("users.transfer", {"from": 1, "to": 2, "amount": 3}),
    ("users.transfer", {"from_": 1, "to": 2, "amount": 3}),
    ("users.credit", {"id": 1, "amount": -(10**12)}),
    ("users.credit", {"id": 1, "amount": 10**12 + 1}),
    ("items.create", {"name": "Pen", "price": 0, "currency": "EUR", "stock": 1}),
    ("items.create", {"name": "Pen", "price": 0, "currency": "eur", "stock": 1}),
    ("items.create", {"name": "Pen", "price": 0, "currency": "EURO", "stock": 1}),
    ("items.create", {"name": "Pen", "price": 10**12 + 1, "currency": "EUR", "stock": 1}),
    ("items.create", {"name": "Pen", "price": 1, "currency": "EUR", "stock": 10**9 + 1}),
    ("payments.open", {"user_id": 1, "amount": 1, "currency": "EUR"}),
    ("payments.open", {"user_id": 2**53, "amount": 1, "currency": "EUR"}),
]


@pytest.mark.parametrize(("command_type", "arguments"), EXAMPLES)
def test_asyncapi_takes_the_arguments_that_the_lane_takes(command_type: str, arguments: dict[str, Any]) -> None:
    [command] = [handler.command for handler in HANDLERS if handler.command.type == command_type]
    try:
        parse(command, arguments)
        is_taken = True
    except InvalidCommand:
        is_taken = False
    assert schema_named(command.__name__).is_valid(arguments) is is_taken


def test_patterns_are_javascript_ones() -> None:
    """JSON Schema's are ECMAScript's, where \\A is the letter A."""
    assert not re.search(r'"pattern": "[^"]*\\\\[AZz]', (ROOT / "docs" / "asyncapi.json").read_text())


def test_asyncapi_has_the_headers_that_the_code_reads_and_writes() -> None:
    # That one is never on the wire: the consumer puts it in place of properties that it cannot decode.
    known = (vars(wire) | vars(actors) | vars(tracestates)).items()
    others = {value for name, value in known if name.startswith("HEADER_")} - {wire.HEADER_MALFORMED}
    headers = others | {field.header for field in FIELDS}
    schemas = ASYNCAPI["components"]["schemas"]
    assert headers == set(schemas["CommandHeaders"]["properties"]) | set(schemas["PackHeaders"]["properties"])
    schema_named("CommandHeaders").validate(wire.headers_of(FULL, is_lowered=True))
    assert not schema_named("CommandHeaders").is_valid({"command-id": system_command_id("x")})


def test_asyncapi_has_the_fields_of_a_pack() -> None:
    [packed] = json.loads(wire.encode_pack([FULL], with_origin=True))
    assert set(packed) == set(ASYNCAPI["components"]["schemas"]["PackedCommand"]["properties"])
    schema_named("PackedCommand").validate(packed)


@pytest.mark.parametrize("result", [b"null", b'{"id":1}'])
def test_asyncapi_describes_outcomes(result: bytes) -> None:
    sent = Outcome(command_id=None, type="t", status="applied", sequence=1, result=msgspec.Raw(result))
    written = json.loads(encode_outcome(sent))
    schema_named("Outcome").validate(written)
    assert set(written) == set(ASYNCAPI["components"]["schemas"]["Outcome"]["properties"])
    assert not schema_named("Outcome").is_valid({**written, "status": "lost"})


def codes_of_the_lane() -> set[str]:
    """Every error code that wire and lane give, wherever it stands in their text."""
    # Of an entry of the log, whatever its command: coordinator/stores/outcomes.py.
    codes: set[str] = {FORGOTTEN}
    named: dict[str, str] = {}
    for path in (
        ROOT / "coordinator/protocol/wire.py",
        ROOT / "coordinator/protocol/decoding.py",
        ROOT / "coordinator/protocol/attributing.py",
        ROOT / "coordinator/service/commands.py",
        ROOT / "coordinator/service/upgrades.py",
        ROOT / "coordinator/transports/rabbitmq/incoming.py",
        *(ROOT / "coordinator/lane").glob("*.py"),
    ):
        text = path.read_text()
        named |= dict(re.findall(r'^([A-Z_]+): Final = "([a-z_]+)"$', text, re.MULTILINE))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                first = node.args[:1] if node.func.id in ("Defect", "Rejected") else []
                given = [word.value for word in node.keywords if word.arg == "code"]
                for argument in (*first, *given):
                    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                        codes.add(argument.value)
                    elif isinstance(argument, ast.Name) and argument.id in named:
                        codes.add(named[argument.id])
        codes |= set(re.findall(r'"(?:failed|expired|rejected)",\s+"([a-z_]+)"', text))
        for line in re.findall(r"^ +code = .*", text, re.MULTILINE):
            codes |= set(re.findall(r'(?:code =|else) "([a-z_]+)"', line))
    return codes


def test_error_codes_are_those_of_the_code() -> None:
    section = PROTOCOL.partition("## Error codes")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    documented = {code for row in rows for code in re.findall(r"`([a-z_]+)`", row.split("|")[1])}
    assert documented == codes_of_the_lane()


def test_the_rejections_of_every_command_are_named_with_it() -> None:
    for service in registry().services:
        folder = ROOT / "shared" / service.name
        raised = set(re.findall(r'Rejected\(\s*"([a-z_]+)"', "".join(path.read_text() for path in folder.glob("*.py"))))
        shown = [ASYNCAPI["components"]["messages"][h.command.type]["summary"] for h in service.public_handlers]
        named = " ".join(
            [*shown, *(h.command.__doc__ or "" for h in service.handlers if h not in service.public_handlers)]
        )
        assert {code for code in raised if f"`{code}`" not in named} == set()


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PROTOCOL, re.DOTALL)
    assert found
    return found.group(1)


def test_the_example_for_amqp_tools_is_a_command_of_ours() -> None:
    shell = block("sh")
    headers = dict(re.findall(r'--header "([a-z-]+): ([^"]*)"', shell))
    headers["command-id"] = FULL.command_id
    [body] = re.findall(r"--body '([^']*)'", shell)
    [message] = decode(Envelope(content_type="application/json", headers=headers), body.encode())
    assert message.defect is None
    [command] = [handler.command for handler in HANDLERS if handler.command.type == message.type]
    parse(command, message.arguments)
    assert f"--exchange {WRITES_EXCHANGE} --routing-key {command.lane()}" in shell


def test_the_example_in_python_is_a_command_of_ours_and_prints_its_outcome(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    published: list[dict[str, Any]] = []
    consumers: list[tuple[str, Any, bool]] = []

    class Channel:
        def confirm_delivery(self) -> None: ...

        def basic_consume(self, queue: str, on_message: Any, *, auto_ack: bool) -> None:
            consumers.append((queue, on_message, auto_ack))

        def basic_publish(self, **arguments: Any) -> None:
            published.append(arguments)

    class Connection:
        def __init__(self, _: Any) -> None: ...

        def channel(self) -> Channel:
            return Channel()

        def process_data_events(self, time_limit: float) -> None:
            consumers[0][1](None, None, None, b'{"status": "applied"}')

        def close(self) -> None: ...

    monkeypatch.setattr("pika.BlockingConnection", Connection)
    exec(compile(block("python"), "PROTOCOL.md", "exec"), {})
    assert capsys.readouterr().out == "{'status': 'applied'}\n"
    [sent] = published
    properties = sent["properties"]
    assert [(queue, auto_ack) for queue, _, auto_ack in consumers] == [(properties.reply_to, True)]
    envelope = Envelope(message_id=properties.message_id, type=properties.type, content_type=properties.content_type)
    [message] = decode(envelope, sent["body"].encode())
    assert message.defect is None
    [command] = [handler.command for handler in HANDLERS if handler.command.type == message.type]
    parse(command, message.arguments)
    assert (sent["exchange"], sent["routing_key"], sent["mandatory"]) == (WRITES_EXCHANGE, command.lane(), True)


_, IN_RABBITMQ, IN_PROCESS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_example_with_rabbitmq_has_what_it_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncio.run", lambda main: main.close())
    exec(compile(IN_RABBITMQ, "README.md", "exec"), {})


def test_the_example_of_a_monolith_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path}/users.db"
    migrate(registry().service("users"), DatabaseSettings(database_url=url))
    monkeypatch.setenv("USERS_DATABASE_URL", url)
    monkeypatch.setenv("USERS_READER_URL", url)
    monkeypatch.chdir(tmp_path)  # where it keeps a file
    exec(compile(IN_PROCESS, "README.md", "exec"), {})
    assert capsys.readouterr().out.splitlines()[-1] == "1 1"


def test_the_readme_says_when_a_run_gives_up() -> None:
    assert (DEATHS_MAX, DEATHS_WINDOW_S) == (3, 60)
    text = " ".join((ROOT / "README.md").read_text().split())
    assert "dies four times within a minute, `make run` gives up" in text


DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_what_refers_to_a_place_in_a_document_finds_it(path: Path) -> None:
    for target, anchor in re.findall(r"\]\(((?:[\w/]+\.md)?)#([a-z0-9-]+)\)", path.read_text()):
        text = (path.parent / target if target else path).read_text()
        headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        places = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert anchor in places, (target, anchor)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_no_merge_was_left_half_done(path: Path) -> None:
    assert not re.search(r"^(<{7}|>{7}) ", path.read_text(), re.MULTILINE)
