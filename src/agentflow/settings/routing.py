"""Settings of the intent decision: how a message finds its role, and what happens when none fits."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, field_validator, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from agentflow.settings.replies import REPLIES
from agentflow.settings.values import Seconds, Section


def _list_of_one(value: object) -> object:
    return [value] if isinstance(value, str) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_list_of_one)]


class Reaction(Section):
    """What to do instead of deciding. `role` goes with `do: role`; a bare word is short for `{do: word}`."""

    do: Literal["base", "role", "ask", "stay", "first", "refuse"]
    role: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"do": value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Editors accept the bare word too."""
        whole = handler.resolve_ref_schema(handler(core))
        return {"anyOf": [{"enum": whole["properties"]["do"]["enum"]}, whole]}

    @model_validator(mode="after")
    def _role_where_needed(self) -> "Reaction":
        if self.do == "role" and not self.role:
            raise ValueError("`do: role` needs `role:` with the name of the role to fall back to")
        if self.do != "role" and self.role:
            raise ValueError(
                f"`role: {self.role}` means something only with `do: role`; now it is `do: {self.do}`"
            )
        return self


class OnCold(Section):
    """What to do when a chosen adapter needs longer than `budget` seconds to be ready."""

    budget: Seconds | None = None
    do: Literal["wait", "base", "role"] = "wait"
    role: str | None = None


class SessionPrior(Section):
    """How much the thread's present role counts.

    tempered: scores are multiplied by `stay`**`beta` for the present role and by
    ((1 - stay) / (K - 1))**`beta` for each other role. margin: a newcomer must lead by `lead`.
    After `idle` seconds of silence the present role counts for nothing.
    """

    kind: Literal["tempered", "margin", "none"] = "tempered"
    stay: float = Field(default=0.8, gt=0, lt=1)
    beta: float = Field(default=0.5, ge=0, le=1)
    lead: float = Field(default=0.2, ge=0, le=1)
    idle: Seconds = Field(default=1800.0, ge=0)


class RouterSettings(Section):
    """The whole decision: features, rates that set the thresholds, reactions, session prior, feedback.

    `reject_rate` and `ask_rate` are shares of the examples (in cross-validation) that fall under the
    scope threshold and under the margin threshold; `scope_threshold` and `margin_threshold` replace what
    those rates give. `replies` are words that only answer. Text beyond `text_limit` characters is
    not looked at.
    """

    features: Literal["hybrid", "meaning", "letters"] = "hybrid"
    reject_rate: float = Field(default=0.05, ge=0, lt=1)
    ask_rate: float = Field(default=0.10, ge=0, lt=1)
    scope_threshold: float | None = None
    margin_threshold: float | None = None
    on_unknown: Reaction = Reaction(do="base")
    on_ambiguous: Reaction = Reaction(do="ask")
    on_cold: OnCold = OnCold()
    session_prior: SessionPrior = SessionPrior()
    out_of_scope: tuple[str, ...] = ()
    feedback: Literal["review", "immediate"] = "review"
    replies: tuple[str, ...] = REPLIES
    question: str = "Did you mean {first} or {second}?"
    question_of_one: str = "Did you mean {first}?"
    refusal: str = "None of my roles covers this. I can help as {roles}."
    text_limit: int = Field(default=2000, ge=100)


class RuleSettings(Section):
    """A rule that decides before meaning does: a regular expression, or words of which one must occur."""

    regex: str | None = None
    keywords: Texts = ()

    @field_validator("regex")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"{value!r} is no regular expression: {error}") from error
        return value

    @model_validator(mode="after")
    def _one_of_both(self) -> "RuleSettings":
        if (self.regex is None) == (not self.keywords):
            raise ValueError("a rule has either `regex:` or `keywords:`")
        return self


class IntentSettings(Section):
    """One of several things a role is for."""

    name: str
    description: str = ""
    examples: Texts = ()
