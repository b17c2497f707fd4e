"""Who may use the server, and how much: its `access` and `limits` blocks; and `telemetry`."""

from typing import Literal

from pydantic import Field, SecretStr, model_validator

from agentflow.settings.values import Seconds, Section

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "ES512", "EdDSA"]
UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
Scope = Literal["chat", "threads", "memory", "users", "admin"]


class TokenSettings(Section):
    """JSON Web Tokens of an identity provider (OIDC). Their algorithms are pinned here, never taken from a token."""

    issuer: str
    audience: str
    jwks_url: str | None = Field(None, description="Where the provider publishes its keys.")
    public_key: SecretStr | None = Field(None, description="A key in PEM instead; file:PATH or env:NAME.")
    algorithms: tuple[Algorithm, ...] = Field(("RS256", "ES256"), min_length=1)
    user_claim: str = Field("sub", description="Who the user is.")
    tenant_claim: str | None = Field(None, description="A whole number; none: everybody is of tenant 0.")
    scopes_claim: str = Field("scope", description="A list, or words with spaces between.")
    scopes: tuple[Scope, ...] = Field(
        ("chat", "threads", "memory"), description="For tokens without that claim."
    )
    leeway: Seconds = Field(30.0, description="How far clocks may differ.")

    @model_validator(mode="after")
    def _one_key(self) -> "TokenSettings":
        if (self.jwks_url is None) == (self.public_key is None):
            raise ValueError("tokens need either jwks_url or public_key")
        return self


class AccessSettings(Section):
    """Who may, beside server.api_key and the keys of `agentflow keys`."""

    tokens: TokenSettings | None = None
    hosts: tuple[str, ...] = Field(
        (), description="Names by which this server is reached; none: any, once a key is needed."
    )


class TelemetrySettings(Section):
    """What agentflow shows of itself beyond `/metrics`."""

    otlp: str | None = Field(
        None,
        pattern=r"^https?://\S+$",
        description="Where traces go (OTLP over HTTP); needs agentflow[otel].",
    )
    content: bool = Field(False, description="Let what people say into the log.")


class LimitSettings(Section):
    """How much one key, or one user of a token, may ask of all processes together. More is answered with 429."""

    rate: str | None = Field("1200/minute", description="Requests, such as 20/second; null: any number.")
    requests: int | None = Field(
        64, ge=1, description="Requests at the same time, streams included; null: any number."
    )
    running: int = Field(
        1024,
        ge=1,
        description="Runs at the same time in this process; more wait, for any process, in order per thread. "
        "What waits for an answer or its time takes no place.",
    )
    runs: int = Field(4096, ge=1, description="Runs open in this process, waiting ones included.")
    tenant_runs: int = Field(
        2048, ge=1, description="Those of one tenant in all processes together, within some seconds."
    )

    @model_validator(mode="after")
    def _readable(self) -> "LimitSettings":
        if self.rate is not None:
            number, _, unit = self.rate.partition("/")
            if not number.strip().isdigit() or unit.strip() not in UNITS:
                raise ValueError("write a number per second, minute, hour or day, such as 1200/minute")
        return self

    @property
    def pace(self) -> tuple[int, int] | None:
        """So many requests in so many seconds."""
        if self.rate is None:
            return None
        number, _, unit = self.rate.partition("/")
        return int(number), UNITS[unit.strip()]
