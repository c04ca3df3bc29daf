"""Spans as a collector gets them, and what a collector that is slow, gone or refuses costs."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Queue

import pytest
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan
from structlog.testing import capture_logs

from coordinator.runtime.loading import load
from coordinator.runtime.otlp import encoded_request, encoded_resource, encoded_scope, encoded_span
from coordinator.runtime.recording import Recorder, TraceSpan, as_the_parent, recorder
from coordinator.runtime.span_export import STOP_S, SpanExporter, resource_of, sampler_of, start_span_export
from coordinator.runtime.trace_settings import TraceSettings, pairs_of
from coordinator.runtime.tracing import recording_spans
from coordinator.service.errors import ConfigurationError
from coordinator.service.trace_context import TraceContext
from tests.support.collector import Collector, collecting

TRACE, SPAN, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "b7ad6b7169203331"
CONTEXT = TraceContext(TRACE, SPAN, "01", "a=1")


def span(name: str = "work", **changed: object) -> TraceSpan:
    known = {"context": CONTEXT, "parent_id": "", "name": name, "kind": "internal", "began_ns": 1, "ended_ns": 2}
    return TraceSpan(**(known | changed))  # type: ignore[arg-type]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    for name in os.environ:
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
        yield collector


def test_a_span_is_what_opentelemetry_reads() -> None:
    whole = span(
        "n" * 300,
        parent_id=PARENT,
        kind="consumer",
        began_ns=1_790_000_000_123_456_789,
        ended_ns=1_790_000_001_000_000_000,
        attributes=(("text", "\u00e9" * 100), ("number", 7), ("large", 2**53), ("negative", -1), ("none", "")),
        links=(CONTEXT, TraceContext("1" * 32, "2" * 16, "00")),
        error="timeout",
    )
    read = ProtoSpan.FromString(encoded_span(whole))
    assert read.trace_id.hex() == TRACE
    assert (read.span_id.hex(), read.parent_span_id.hex()) == (SPAN, PARENT)
    assert (read.name, read.kind, read.trace_state) == ("n" * 300, ProtoSpan.SPAN_KIND_CONSUMER, "a=1")
    assert (read.start_time_unix_nano, read.end_time_unix_nano) == (whole.began_ns, whole.ended_ns)
    assert [(each.key, each.value.string_value or each.value.int_value) for each in read.attributes] == [
        ("text", "\u00e9" * 100),
        ("number", 7),
        ("large", 2**53),
        ("negative", -1),
        ("none", 0),
        ("error.type", "timeout"),
    ]
    assert [(link.trace_id.hex(), link.span_id.hex(), link.trace_state, link.flags) for link in read.links] == [
        (TRACE, SPAN, "a=1", 1),
        ("1" * 32, "2" * 16, "", 0),
    ]
    assert (read.status.code, read.flags) == (2, 1)
    # What is written back is the same, so nothing of it is unknown or out of place.
    assert ProtoSpan.FromString(read.SerializeToString(deterministic=True)) == read
    assert list(UnknownFieldSet(read)) == []


def test_numbers_of_every_length_and_links_of_spans_in_turn_are_read() -> None:
    numbers = [edge + more for edge in (0, 1 << 7, 1 << 14, 1 << 21, 1 << 28, 1 << 62) for more in (-1, 0, 1)]
    one, other = (TraceContext("1" * 32, "2" * 16, "01"),), (TraceContext("3" * 32, "4" * 16, "01"),)
    spans = [
        span(attributes=(("number", number),), links=links)
        for number, links in zip(numbers, [one, one, other] * len(numbers), strict=False)
    ]
    read = [ProtoSpan.FromString(encoded_span(each)) for each in spans]
    assert [each.attributes[0].value.int_value for each in read] == numbers
    assert [each.links[0].trace_id.hex()[0] for each in read] == list("113" * (len(numbers) // 3))


def test_a_request_is_what_opentelemetry_reads() -> None:
    spans = [span(f"span {number}", attributes=(("k", "v" * number),)) for number in range(300)]
    body = encoded_request(spans, encoded_resource({"service.name": "s", "n": 1}), encoded_scope("1.2"))
    read = ExportTraceServiceRequest.FromString(body)
    (of_process,) = read.resource_spans
    assert [each.key for each in of_process.resource.attributes] == ["service.name", "n"]
    (of_scope,) = of_process.scope_spans
    assert (of_scope.scope.name, of_scope.scope.version) == ("write-coordinator", "1.2")
    assert [each.name for each in of_scope.spans] == [each.name for each in spans]


def test_a_clock_that_was_set_back_makes_no_negative_span() -> None:
    read = ProtoSpan.FromString(encoded_span(span(began_ns=5, ended_ns=3)))
    assert (read.start_time_unix_nano, read.end_time_unix_nano) == (5, 5)


def test_spans_are_exported_as_the_settings_say(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x,x-scope=1")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.name=overruled")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    with recording_spans("gateway-users"):
        recording = recorder()
        assert recording is not None
        recording.note(span("first"))
        collector.wait_for(lambda: len(collector.spans) == 1)
        recording.note(span("second"))
    assert recorder() is None
    assert [each.name for each in collector.spans] == ["first", "second"]
    assert collector.spans[0].service == "mine"
    assert collector.resources[0]["deployment.environment.name"] == "test"
    received = collector.received[0]
    assert received.path == "/v1/traces"
    headers = {name.lower(): value for name, value in received.headers.items()}
    assert (headers["authorization"], headers["x-scope"]) == ("Bearer x", "1")
    assert headers["content-type"] == "application/x-protobuf"


@pytest.mark.parametrize("setting", [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")])
def test_what_is_switched_off_records_nothing(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, setting: tuple[str, str]
) -> None:
    monkeypatch.setenv(*setting)
    with recording_spans("gateway-users"):
        assert recorder() is None
    assert collector.received == []


def test_without_an_address_nothing_is_imported() -> None:
    program = """
import sys
from coordinator.runtime.tracing import recording_spans
from coordinator.runtime.recording import recorder
with recording_spans("p"):
    assert recorder() is None
print(*(name for name in sys.modules if name.split(".")[-1] in {"span_export", "otlp", "trace_settings"}))
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    run = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert run.stdout.strip() == ""


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318", "http://localhost:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://", "must be an address"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:x", "must be an address"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:secret@h:1", "OTEL_EXPORTER_OTLP_HEADERS"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "secret", "name=value"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=secret%E2%82%AC", "values in ASCII"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a:b=secret", "names of headers"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a b=secret", "names of headers"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "Content-Length=3", "how long the body"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:1/\u00e9", "its path ASCII"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://h:1/a b", "its path ASCII"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a..b:1", "its host must be"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{'a' * 64}:1", "its host must be"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a b:1", "its host must be"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=secret%0d%0aX: y", "name=value"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api key=secret", "names of headers"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=secret€", "in ASCII"),
        ("OTEL_RESOURCE_ATTRIBUTES", "=x", "name=value"),
        ("OTEL_TRACES_SAMPLER", "sometimes", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "2", "less than or equal to 1"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0", "greater than or equal to 1"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "greater than or equal to 1"),
    ],
)
def test_a_wrong_setting_is_named_and_no_secret_is_shown(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as raised, recording_spans("p"):
        pass
    assert name in str(raised.value)
    assert said in str(raised.value)
    assert "HEADERS" not in name or "secret" not in str(raised.value)


def test_a_certificate_that_is_none_is_named(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://localhost:1/x")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere")
    with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_CERTIFICATE: '/nowhere'"):
        start_span_export("p", "1")


def test_pairs_may_have_spaces_and_escapes() -> None:
    assert pairs_of(" a = 1 ,, b=x%2Cy%3D%25 ,") == {"a": "1", "b": "x,y=%"}
    assert pairs_of("") == {}


@pytest.mark.parametrize(
    ("sampler", "argument", "of_roots", "of_children", "of_others"),
    [
        ("parentbased_always_on", "1", True, True, False),
        ("parentbased_always_off", "1", False, True, False),
        ("parentbased_traceidratio", "0", False, True, False),
        ("parentbased_traceidratio", "1", True, True, False),
        ("always_on", "0", True, True, True),
        ("always_off", "1", False, False, False),
        ("traceidratio", "0", False, False, False),
        ("traceidratio", "1", True, True, True),
    ],
)
def test_a_sampler_decides(sampler: str, argument: str, of_roots: bool, of_children: bool, of_others: bool) -> None:
    settings = TraceSettings(traces_sampler=sampler, traces_sampler_arg=float(argument))  # type: ignore[arg-type]
    samples = sampler_of(settings)
    found = [samples("f" * 32, parent) for parent in (None, True, False)]
    assert found == [of_roots, of_children, of_others]


def test_a_ratio_is_a_share_of_the_traces() -> None:
    samples = sampler_of(TraceSettings(traces_sampler="traceidratio", traces_sampler_arg=0.25))
    ids = [f"{number * 0x9E3779B97F4A7C15 & (1 << 128) - 1:032x}" for number in range(1, 4001)]
    assert 800 < sum(samples(each, None) for each in ids) < 1200
    assert as_the_parent("", None)


def test_a_full_queue_drops_and_counts() -> None:
    woken: list[int] = []
    recording = Recorder(lambda: 0, 3, 2, lambda: woken.append(1))
    for number in range(5):
        recording.note(span(str(number)))
    assert (recording.dropped, len(woken)) == (2, 1)
    assert [each.name for each in recording.take(2)] == ["0", "1"]
    assert [each.name for each in recording.take(9)] == ["2"]


def exporter_of(collector: Collector, **settings: object) -> SpanExporter:
    from coordinator.runtime.span_export import CollectorConnection

    loaded = load(TraceSettings).model_copy(update=settings)
    return SpanExporter(loaded, "p", "1", CollectorConnection(loaded).send)


def test_what_a_collector_does_not_take_is_said_once_a_minute(collector: Collector) -> None:
    collector.status = 400
    exporter = exporter_of(collector)
    with capture_logs() as lines:
        exporter.start()
        for number in range(3):
            exporter.recorder.note(span())
            seen = number + 1
            collector.wait_for(lambda seen=seen: len(collector.received) >= seen)
        exporter.stop(5.0)
    lost = [line for line in lines if line["event"] == "spans_lost"]
    assert len(lost) == 1
    assert lost[0]["reason"] == "it answers 400"
    assert collector.spans == []


def test_an_error_that_nobody_thought_of_costs_its_spans_and_not_the_later_ones(collector: Collector) -> None:
    errors: list[Exception] = [ValueError("Invalid header value b'secret'"), UnicodeError("secret")]
    tried = Queue[bytes]()

    def send(body: bytes) -> None:
        tried.put(body)
        if errors:
            raise errors.pop()

    exporter = SpanExporter(load(TraceSettings), "p", "1", send)
    with capture_logs() as lines:
        exporter.start()
        for _ in range(3):
            exporter.recorder.note(span())
            tried.get(timeout=30)
        exporter.stop(5.0)
    (line,) = lines
    assert (line["event"], line["spans"], line["reason"]) == ("spans_lost", 1, "they cannot be sent: UnicodeError")
    assert errors == []


def test_what_a_collector_may_take_later_is_offered_again(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.runtime.span_export._PAUSE_S", 0.01)
    collector.status = 503
    exporter = exporter_of(collector)
    exporter.start()
    exporter.recorder.note(span())
    collector.wait_for(lambda: len(collector.received) >= 1)
    collector.status = 200
    collector.wait_for(lambda: len(collector.spans) == 1)
    exporter.stop(5.0)


def test_a_frozen_collector_holds_up_nobody(collector: Collector) -> None:
    collector.frozen.set()
    exporter = exporter_of(collector, bsp_max_queue_size=100, bsp_max_export_batch_size=10)
    exporter.start()
    began_s = time.perf_counter()
    for _ in range(10_000):
        exporter.recorder.note(span())
    assert time.perf_counter() - began_s < 1.0
    assert exporter.recorder.dropped > 9_000
    began_s = time.monotonic()
    exporter.stop()
    assert time.monotonic() - began_s < STOP_S + 1.0


def test_a_collector_that_is_gone_ends_no_process(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    with capture_logs() as lines:
        with recording_spans("p"):
            recording = recorder()
            assert recording is not None
            recording.note(span())
        (line,) = [each for each in lines if each["event"] == "spans_lost"]
    assert (line["spans"], line["collector"]) == (1, "127.0.0.1:1")


def test_a_connection_that_was_closed_meanwhile_is_made_again_at_once(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.runtime.span_export._PAUSE_S", 600.0)
    exporter = exporter_of(collector)
    exporter.start()
    exporter.recorder.note(span("before"))
    collector.wait_for(lambda: len(collector.spans) == 1)
    collector.restart()
    exporter.recorder.note(span("after"))
    collector.wait_for(lambda: len(collector.spans) == 2)
    exporter.stop(5.0)


def test_many_threads_lose_and_double_nothing(collector: Collector) -> None:
    exporter = exporter_of(collector, bsp_max_queue_size=100_000)
    exporter.start()

    def note(which: int) -> None:
        for number in range(500):
            exporter.recorder.note(span(f"{which}.{number}"))

    threads = [threading.Thread(target=note, args=(which,)) for which in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    exporter.stop(20.0)
    assert len({each.name for each in collector.spans}) == len(collector.spans) == 2000


def test_a_forked_process_exports_its_own_spans_alone(collector: Collector) -> None:
    exporter = exporter_of(collector, bsp_schedule_delay=60_000)
    exporter.start()
    exporter.recorder.note(span("parent's"))
    child = os.fork()
    if child == 0:
        exporter.recorder.note(span("child's"))
        exporter.stop(10.0)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert [each.name for each in collector.spans] == ["child's"]
    exporter.stop(10.0)
    assert sorted(each.name for each in collector.spans) == ["child's", "parent's"]


def test_a_process_is_named_by_what_it_is() -> None:
    assert resource_of(TraceSettings(), "coordinator users", "1")["service.name"] == "coordinator-users"
