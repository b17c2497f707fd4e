"""The policy, all of it, in the order in which it is asked. Pure.

explicit role > `/role` in the text > role pinned to the thread > rules > an answer to a question asked back
> short replies stay > out of scope > meaning with the session prior > margin; last, an adapter that is too
cold for its budget gives way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from agentflow.errors import UnknownRole
from agentflow.routing.prior import Weighed, held_back, weigh
from agentflow.routing.roles import RoleExamples
from agentflow.routing.words import folded, is_reply, words
from agentflow.settings.routing import Reaction, RouterSettings
from agentflow.turn import Context, Json

Reason = Literal[
    "explicit",
    "pinned",
    "rule",
    "answer",
    "reply",
    "classified",
    "prior",
    "ask",
    "refuse",
    "fallback:unknown",
    "fallback:ambiguous",
    "fallback:cold",
]
MODEL = "agentflow"
AUTOMATIC = ("", "auto")
BASE = "base"
ANSWER = 6


@dataclass(frozen=True)
class SelectInput:
    """Everything the policy looks at.

    `wanted_role` is a role's name or a model id `agentflow/<role>`; `agentflow` alone leaves the choice
    to us. `current_role` is the role of the thread's last turn, `idle` the seconds since. `offered` are
    the roles of a question asked back in the last turn. `waits` are the expected seconds until a role's
    adapter is ready (missing: ready).
    """

    text: str
    intent: Json
    roles: Sequence[RoleExamples]
    settings: RouterSettings
    wanted_role: str | None = None
    pinned_role: str | None = None
    current_role: str | None = None
    idle: float = 0.0
    offered: Sequence[str] = ()
    waits: Mapping[str, float] = field(default_factory=dict)

    @staticmethod
    def of(
        context: Context,
        intent: Json,
        *,
        roles: Sequence[RoleExamples],
        settings: RouterSettings,
        wanted_role: str | None,
    ) -> "SelectInput":
        """A message of a thread, with what the thread knew before it."""
        return SelectInput(
            text=context["text"],
            intent=intent,
            roles=roles,
            settings=settings,
            wanted_role=wanted_role,
            pinned_role=context["pinned_role"],
            current_role=context["role"],
            idle=context["idle"],
            offered=context["offered"],
        )


@dataclass(frozen=True)
class Selection:
    """The decision. `role` None is the base model; `text` goes to the model, without a leading command.

    `question` is set for the reasons "ask" and "refuse": say it instead of generating an answer.
    """

    role: str | None
    reason: Reason
    text: str
    question: str | None
    explanation: Json


def select(asked: SelectInput) -> Selection:
    """Which role answers. Raises UnknownRole for an explicit role that does not exist."""
    for step in (_explicit, _command, _pinned, _rule, _answer, _reply):
        chosen = step(asked)
        if chosen is not None:
            return _unless_cold(asked, chosen)
    return _unless_cold(asked, _by_meaning(asked))


def wanted(name: str | None) -> str | None:
    """The role that an API field or model id asks for; None where it leaves the choice to us."""
    if name is None:
        return None
    family, slash, rest = name.partition("/")
    role = rest if slash and family == MODEL else "" if name == MODEL else name
    return None if role in AUTOMATIC else role


def needs_meaning(asked: SelectInput) -> bool:
    """False when the decision falls before `intent` is looked at, so that nothing needs to be embedded."""
    return all(step(asked) is None for step in (_explicit, _command, _pinned, _rule, _answer, _reply))


# --- the steps, in order -------------------------------------------------------------------


def _explicit(asked: SelectInput) -> Selection | None:
    role = wanted(asked.wanted_role)
    if role is None:
        return None
    names = {one.name for one in asked.roles}
    if role == BASE and role not in names:
        return _chosen(asked, None, "explicit", {"asked_for": asked.wanted_role})
    if role not in names:
        raise UnknownRole(
            f"There is no role {role!r}. Roles: {', '.join(sorted(names)) or 'none'}; "
            f"`{MODEL}` leaves the choice to the router, `{BASE}` asks for the base model.",
            field="role",
            value=asked.wanted_role,
        )
    return _chosen(asked, role, "explicit", {"asked_for": asked.wanted_role})


def _command(asked: SelectInput) -> Selection | None:
    """`/coder fix this`: the role by name or title, in any case; the rest of the text goes on."""
    text = asked.text.lstrip()
    if not text.startswith("/"):
        return None
    command, _, rest = text[1:].partition(" ") if " " in text else (text[1:], "", "")
    head, newline, tail = command.partition("\n")
    rest = (tail + newline + rest).strip() if newline else rest.strip()
    role = _by_name(asked.roles, head)
    if role is None:
        return None
    chosen = _chosen(asked, role, "explicit", {"command": f"/{head}"})
    return replace(chosen, text=rest or asked.text)


def _pinned(asked: SelectInput) -> Selection | None:
    if asked.pinned_role is None or asked.pinned_role not in {one.name for one in asked.roles}:
        return None
    return _chosen(asked, asked.pinned_role, "pinned", {})


def _rule(asked: SelectInput) -> Selection | None:
    """The rule that matches most of the text; order in the file decides nothing."""
    looked_at = asked.text[: asked.settings.text_limit]
    found = [
        (-len(match[0]), role.name, rule.source, match[0])
        for role in asked.roles
        for rule in role.rules
        if (match := rule.pattern.search(looked_at))
    ]
    if not found:
        return None
    _, role_name, source, matched = min(found)
    others = sorted({name for _, name, _, _ in found} - {role_name})
    return _chosen(asked, role_name, "rule", {"rule": source, "matched": matched, "also_matched": others})


def _answer(asked: SelectInput) -> Selection | None:
    """After a question asked back, a short text with a word that only one of the offered roles is called by."""
    said = words(asked.text)
    calls = {
        one.name: set(words(f"{one.name} {one.title}")) for one in asked.roles if one.name in asked.offered
    }
    named = []
    for role, own in calls.items():
        shared = {word for other, theirs in calls.items() if other != role for word in theirs}
        named += [role] if (own - shared) & set(said) else []
    if len(named) != 1 or len(said) > ANSWER:
        return None
    return _chosen(asked, named[0], "answer", {"offered": list(asked.offered)})


def _reply(asked: SelectInput) -> Selection | None:
    current = _present(asked)
    if current is None or not is_reply(asked.text, frozenset(asked.settings.replies)):
        return None
    return _chosen(asked, current, "reply", {"current_role": current})


def _by_meaning(asked: SelectInput) -> Selection:
    settings, current = asked.settings, _present(asked)
    raw = {one["role"]: float(one["score"]) for one in asked.intent.get("ranking", [])}
    known = {role: score for role, score in raw.items() if any(one.name == role for one in asked.roles)}
    if current and "unavailable" in asked.intent:
        return _react(asked, Reaction(do="stay"), "fallback:unknown", [], {})
    if not known or not asked.intent.get("in_scope", True):
        return _react(asked, settings.on_unknown, "fallback:unknown", _ranked(known), {})
    weighed = weigh(known, current, len(asked.roles), settings.session_prior, asked.idle)
    told: Json = {"prior": {"kind": weighed.kind, "role": current, "factor": round(weighed.factor, 4)}}
    if held_back(weighed.scores, current, settings.session_prior, asked.idle):
        told["prior"] = {"kind": "margin", "role": current, "lead": settings.session_prior.lead}
        return _chosen(asked, current, "prior", told)
    return _by_margin(asked, weighed, _ranked(known), told)


def _by_margin(asked: SelectInput, weighed: Weighed, unweighed: list[str], told: Json) -> Selection:
    order = _ranked(weighed.scores)
    lead = weighed.scores[order[0]] - (weighed.scores[order[1]] if len(order) > 1 else 0.0)
    needed = float(asked.intent.get("margin_threshold") or 0.0)
    told |= {"margin": round(lead, 4), "margin_threshold": round(needed, 4)}
    told["alternatives"] = [{"role": role, "score": round(weighed.scores[role], 4)} for role in order[1:3]]
    if len(order) > 1 and lead < needed:
        return _react(asked, asked.settings.on_ambiguous, "fallback:ambiguous", order, told)
    return _chosen(asked, order[0], "classified" if order[0] == unweighed[0] else "prior", told)


# --- reactions -----------------------------------------------------------------------------


def _react(
    asked: SelectInput, reaction: Reaction, reason: Reason, order: Sequence[str], told: Json
) -> Selection:
    told = {**told, "reaction": reaction.do}
    match reaction.do:
        case "ask" if order:
            return _asked_back(asked, order[:2], told, because=reason)
        case "refuse":
            titles = ", ".join(_title(one) for one in asked.roles)
            return replace(
                _chosen(asked, None, "refuse", {**told, "because": reason}),
                question=asked.settings.refusal.replace("{roles}", titles),
            )
        case "stay":
            return _chosen(asked, _present(asked), reason, told)
        case "first" if order:
            return _chosen(asked, order[0], reason, told)
        case "role":
            return _chosen(asked, reaction.role, reason, told)
        case _:
            return _chosen(asked, None, reason, told)


def _asked_back(asked: SelectInput, offered: Sequence[str], told: Json, *, because: str) -> Selection:
    titles = {one.name: _title(one) for one in asked.roles}
    first, second = titles[offered[0]], titles[offered[-1]]
    form = asked.settings.question if len(offered) > 1 else asked.settings.question_of_one
    question = form.replace("{first}", first).replace("{second}", second)
    told = {**told, "because": because, "offered": list(offered)}
    return replace(_chosen(asked, None, "ask", told), question=question)


def _unless_cold(asked: SelectInput, chosen: Selection) -> Selection:
    """Give way when the adapter needs longer than its budget; an explicit or pinned role is waited for."""
    on_cold, role = asked.settings.on_cold, chosen.role
    if role is None or on_cold.do == "wait" or chosen.reason in {"explicit", "pinned"}:
        return chosen
    own = next((one.cold_budget for one in asked.roles if one.name == role), None)
    budget, wait = on_cold.budget if own is None else own, asked.waits.get(role, 0.0)
    if budget is None or wait <= budget:
        return chosen
    told = {
        **chosen.explanation,
        "cold": {"role": role, "wait": wait, "budget": budget, "because": chosen.reason},
    }
    return replace(
        chosen, role=on_cold.role if on_cold.do == "role" else None, reason="fallback:cold", explanation=told
    )


# --- small things --------------------------------------------------------------------------


def _chosen(asked: SelectInput, role: str | None, reason: Reason, told: Json) -> Selection:
    return Selection(role, reason, asked.text, None, {"reason": reason, "role": role, **told})


def _present(asked: SelectInput) -> str | None:
    return asked.current_role if asked.current_role in {one.name for one in asked.roles} else None


def _ranked(scores: Mapping[str, float]) -> list[str]:
    return sorted(scores, key=lambda role: (-scores[role], role))


def _title(role: RoleExamples) -> str:
    return role.title or role.name


def _by_name(roles: Sequence[RoleExamples], said: str) -> str | None:
    exact = [one.name for one in roles if one.name == said]
    folds = [one.name for one in roles if folded(said) in {folded(one.name), folded(one.title)} - {""}]
    return next(iter(exact or sorted(folds)), None)
