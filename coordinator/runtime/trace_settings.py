"""Settings of traces: OpenTelemetry's own variables, with its own units, so a time is in milliseconds here.

They are read only where an address to export to is set.
"""

import re
from typing import Final, Literal
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from coordinator.runtime.addresses import is_host_name
from coordinator.runtime.settings import Limits

_TRACES_PATH: Final = "/v1/traces"

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VISIBLE: Final = re.compile(r"[!-~]*")
_OURS: Final = frozenset({"content-length", "transfer-encoding"})

SamplerName = Literal[
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
]


class TraceSettings(BaseSettings, Limits):
    """Where spans are exported to, and which."""

    model_config = SettingsConfigDict(env_prefix="OTEL_", env_ignore_empty=True)

    exporter_otlp_endpoint: str = Field(
        default="",
        description="The collector that takes spans by OTLP over HTTP, such as `http://localhost:4318`. Unset, no "
        "spans are recorded.",
    )
    exporter_otlp_traces_endpoint: str = Field(
        default="", description="The whole address for spans, with its path; it wins over OTEL_EXPORTER_OTLP_ENDPOINT."
    )
    exporter_otlp_protocol: Literal["http/protobuf"] = Field(
        default="http/protobuf", description="gRPC and JSON are not spoken."
    )
    exporter_otlp_traces_protocol: Literal["http/protobuf"] | None = Field(
        default=None, description="Likewise, for spans alone."
    )
    exporter_otlp_headers: SecretStr = Field(
        default=SecretStr(""),
        description="Headers of each export, such as a token of the collector's: `name=value,name=value`.",
    )
    exporter_otlp_traces_headers: SecretStr = Field(default=SecretStr(""), description="Likewise, for spans alone.")
    exporter_otlp_timeout: int = Field(
        default=10_000, ge=1, le=600_000, description="How long one export may take, in milliseconds."
    )
    exporter_otlp_compression: Literal["none", "gzip"] = Field(default="none", description="Of what is exported.")
    exporter_otlp_certificate: str = Field(
        default="",
        description="A file of certificates by which the collector's is checked; by default the system's.",
    )
    service_name: str = Field(
        default="",
        description="`service.name` of all spans of a process; by default its own, such as `gateway-orders`.",
    )
    resource_attributes: str = Field(
        default="", description="More that is said of the process with its spans: `name=value,name=value`."
    )
    traces_exporter: Literal["otlp", "none"] = Field(default="otlp", description="`none` records no spans.")
    sdk_disabled: bool = Field(default=False, description="Likewise, if `true`.")
    traces_sampler: SamplerName = Field(
        default="parentbased_always_on",
        description="Which requests begin a trace with spans. The `parentbased_…` ones leave that to the caller's "
        "`traceparent`, if there is one. Lanes and effect workers do as the command's says.",
    )
    traces_sampler_arg: float = Field(
        default=1.0, ge=0, le=1, description="The share of traces that are sampled, for the samplers with a ratio."
    )
    bsp_max_queue_size: int = Field(
        default=2048, ge=1, le=1_000_000, description="Spans that wait for their export; more are dropped and counted."
    )
    bsp_max_export_batch_size: int = Field(default=512, ge=1, le=100_000, description="Spans of one export.")
    bsp_schedule_delay: int = Field(
        default=5000, ge=1, le=600_000, description="How long a span waits for others, in milliseconds."
    )

    @field_validator("exporter_otlp_endpoint", "exporter_otlp_traces_endpoint")
    @classmethod
    def _is_http(cls, url: str) -> str:
        if url:
            parts = _parts(url)
            if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname:
                raise ValueError("it must be an address with http:// or https://, such as http://localhost:4318")
            if parts.username is not None or parts.query or parts.fragment:
                raise ValueError(
                    "it must have a host, a port and a path alone: tokens are headers, of OTEL_EXPORTER_OTLP_HEADERS"
                )
            if not _VISIBLE.fullmatch(parts.path) or not is_host_name(parts.hostname):
                raise ValueError("its host must be a name or an address, and its path ASCII, with %XX for the rest")
        return url

    @field_validator("resource_attributes")
    @classmethod
    def _has_pairs(cls, given: str) -> str:
        pairs_of(given)
        return given

    @field_validator("exporter_otlp_headers", "exporter_otlp_traces_headers")
    @classmethod
    def _has_headers(cls, given: SecretStr) -> SecretStr:
        for name, value in pairs_of(given.get_secret_value()).items():
            if not _TOKEN.fullmatch(name) or name.lower() in _OURS or not value.isascii():
                # Its value is not shown, and where a comma is missing the name is none.
                raise ValueError(
                    "it must be name=value,name=value: names of headers, and not of one that says how long the body "
                    "is, and values in ASCII"
                )
        return given

    @property
    def endpoint(self) -> SplitResult:
        """The address for spans, which is set."""
        if self.exporter_otlp_traces_endpoint:
            return urlsplit(self.exporter_otlp_traces_endpoint)
        return urlsplit(self.exporter_otlp_endpoint.rstrip("/") + _TRACES_PATH)

    @property
    def headers(self) -> dict[str, str]:
        """Those of each export."""
        own = self.exporter_otlp_traces_headers.get_secret_value()
        return pairs_of(own or self.exporter_otlp_headers.get_secret_value())

    @property
    def is_off(self) -> bool:
        """Whether no spans are recorded, though there is an address."""
        return self.sdk_disabled or self.traces_exporter == "none"


def pairs_of(text: str) -> dict[str, str]:
    """`name=value,name=value`, with percent signs for what has no place in it. Raises ValueError for anything else."""
    found = dict[str, str]()
    for each in text.split(","):
        name, separator, value = (part.strip() for part in each.partition("="))
        if not each.strip():
            continue
        name, value = unquote(name), unquote(value)
        if not separator or not name or not name.isascii() or not (name + value).isprintable():
            # Not shown: it may be a token.
            raise ValueError("it must be name=value,name=value, with %XX for a comma or a percent sign in a value")
        found[name] = value
    return found


def _parts(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts
