"""Settings of who may ask a gateway."""

from typing import Final
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from coordinator.runtime.host_names import checked_hosts
from coordinator.runtime.lists import shown_word
from coordinator.runtime.settings import Limits

METHODS: Final = ("keys", "tokens", "none")
ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""All of them have a public key: what a gateway knows forges nothing."""
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


class AccessSettings(BaseSettings, Limits):
    """Who may ask a gateway: how callers prove who they are."""

    model_config = SettingsConfigDict(env_prefix="ACCESS_")

    methods: str = Field(
        default="",
        description="How callers prove who they are: `keys`, `tokens`, or `keys tokens`; `none` lets everybody in. "
        "Unset, a gateway on a loopback address lets in who asks as localhost or 127.0.0.1, through no proxy that says "
        "so and no page of another site, and no gateway starts on others.",
    )
    open_as: str = Field(
        default="",
        description="With `none`: the names of hosts, with spaces between, by which everybody may ask a gateway, "
        "beside `localhost` and `127.0.0.1`. By other names, and for pages of other sites, it refuses everything then. "
        "Unset, every name counts, also that of a site that leads here. The operations gateway has "
        "`OPERATIONS_OPEN_AS`.",
    )
    keys_refresh_s: float = Field(
        default=2.0, ge=0.1, description="How often a gateway reads the API keys: a revoked one counts no longer."
    )
    keys_age_s_max: float = Field(
        default=86_400.0,
        ge=1,
        description="For how long API keys that cannot be read again are used: so long at most a revoked one counts at "
        "a gateway that is cut off from the database. Then no key counts.",
    )
    token_issuer: str = Field(default="", description="The `iss` of tokens. Needed for `tokens`.")
    token_audience: str = Field(
        default="", description="What the `aud` of tokens names: this deployment. Needed for `tokens`."
    )
    token_keys: str = Field(
        default="",
        description="The issuer's public keys, a JSON Web Key Set: an https:// address (http:// on loopback), or the "
        "path of a file. Needed for `tokens`.",
    )
    token_algorithms: str = Field(default="RS256 ES256 EdDSA", description="The algorithms of tokens that are taken.")
    token_leeway_s: float = Field(
        default=0.0, ge=0, le=300, description="How far the clocks of the issuer and a gateway may be apart."
    )
    token_tenant_claim: str = Field(default="tenant", description="The claim that names the tenant.")
    token_scope_claim: str = Field(
        default="scope", description="The claim that names the scopes: a text with spaces, or a list."
    )
    token_keys_refresh_s: float = Field(
        default=300.0, ge=1, description="How often the keys are fetched again; for an unknown one it is done at once."
    )
    token_keys_age_s_max: float = Field(
        default=86_400.0,
        ge=1,
        description="For how long keys that cannot be fetched again are used; then no token counts.",
    )

    @field_validator("methods", "token_algorithms")
    @classmethod
    def _in_one_form(cls, text: str) -> str:
        return " ".join(dict.fromkeys(text.replace(",", " ").split()))

    @field_validator("open_as")
    @classmethod
    def _hosts(cls, text: str) -> str:
        return " ".join(checked_hosts(text.replace(",", " ").split()))

    @field_validator("methods")
    @classmethod
    def _known_methods(cls, text: str) -> str:
        _check_among(text, METHODS)
        if "none" in text.split() and text != "none":
            raise ValueError("`none` goes with no other")
        return text

    @field_validator("token_algorithms")
    @classmethod
    def _known_algorithms(cls, text: str) -> str:
        _check_among(text, ALGORITHMS)
        if not text:
            raise ValueError(f"it must name one at least, of {', '.join(ALGORITHMS)}")
        return text

    @field_validator("token_keys")
    @classmethod
    def _safe(cls, text: str) -> str:
        if "://" not in text:
            return text
        parts = urlsplit(text)
        if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            return text
        raise ValueError("it must be an https:// address: whoever can change the keys on their way forges every token")

    @model_validator(mode="after")
    def _complete(self) -> "AccessSettings":
        if "tokens" in self.methods.split():
            missing = [name for name in ("token_issuer", "token_audience", "token_keys") if not getattr(self, name)]
            if missing:
                names = ", ".join(self.shown(name) for name in missing)
                raise ValueError(f"{self.shown('methods')} names tokens, and these are not set: {names}")
        return self


def _check_among(text: str, known: tuple[str, ...]) -> None:
    unknown = [word for word in text.split() if word not in known]
    if unknown:
        raise ValueError(f"{shown_word(unknown[0])} is not one of {', '.join(known)}")
