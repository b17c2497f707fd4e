"""The policy: who wins over whom, and what happens when nobody does."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import UnknownRole
from agentflow.routing.prior import held_back, weigh
from agentflow.routing.roles import RoleExamples, Rule
from agentflow.routing.select import SelectInput, needs_meaning, select, wanted
from agentflow.settings.routing import RouterSettings, SessionPrior

CODER = RoleExamples(
    "coder", title="The Coder", rules=(Rule.of_regex(r"traceback"), Rule.of_keywords(["sql"]))
)
ARTIST = RoleExamples("artist", title="The Artist")
LAWYER = RoleExamples("lawyer", rules=(Rule.of_keywords(["nda", "sql licence"]),))
ROLES = (CODER, ARTIST, LAWYER)
NAMES = [role.name for role in ROLES]


def intent(coder=0.7, artist=0.2, lawyer=0.1, *, in_scope=True, margin=0.1) -> dict[str, Any]:
    scores = sorted({"coder": coder, "artist": artist, "lawyer": lawyer}.items(), key=lambda one: -one[1])
    ranking = [{"role": role, "score": score} for role, score in scores]
    return {"ranking": ranking, "in_scope": in_scope, "margin_threshold": margin}


def ask(text="make the whole thing better", /, *, found=None, router=None, roles=ROLES, **more):
    return select(SelectInput(text, found or intent(), roles, RouterSettings(**(router or {})), **more))


def decided(selection) -> tuple[str | None, str]:
    return selection.role, selection.reason


def test_meaning_decides_when_nothing_else_does() -> None:
    selection = ask()
    assert (decided(selection), selection.question) == (("coder", "classified"), None)
    assert selection.explanation["alternatives"][0] == {"role": "artist", "score": 0.2}


def test_a_message_that_nobody_could_look_into_stays_with_its_role() -> None:
    blind = {"ranking": [], "in_scope": False, "unavailable": "the embedder is down"}
    assert decided(ask(found=blind, current_role="artist")) == ("artist", "fallback:unknown")
    assert decided(ask(found=blind)) == (None, "fallback:unknown")


def test_an_explicit_role_wins_over_everything() -> None:
    everything = {"wanted_role": "artist", "pinned_role": "coder", "current_role": "coder"}
    assert decided(ask("/lawyer nda traceback", **everything)) == ("artist", "explicit")


def test_a_command_wins_over_a_pin_and_leaves_the_text() -> None:
    selection = ask("/The  fix it", pinned_role="artist")
    assert decided(selection) == ("artist", "pinned")
    selection = ask("/CODER fix it\nplease", pinned_role="artist")
    assert (decided(selection), selection.text) == (("coder", "explicit"), "fix it\nplease")


@pytest.mark.parametrize("text", ["/unknown fix it", "/ coder", "see /coder", "/"])
def test_what_is_no_command_stays_text(text) -> None:
    assert (ask(text).text, ask(text).reason) == (text, "classified")


def test_a_pin_wins_over_rules_and_a_rule_over_meaning() -> None:
    assert decided(ask("an nda for me", pinned_role="artist")) == ("artist", "pinned")
    assert decided(ask("an nda for me please")) == ("lawyer", "rule")


def test_a_pin_to_a_role_that_is_gone_is_ignored() -> None:
    assert decided(ask(pinned_role="gone")) == ("coder", "classified")


@given(order=st.permutations(ROLES))
def test_of_several_rules_the_longest_match_wins_in_any_order(order) -> None:
    selection = ask("is this SQL licence fine for us?", roles=order)
    assert decided(selection) == ("lawyer", "rule")
    assert selection.explanation["also_matched"] == ["coder"]


def test_keywords_match_whole_words_only() -> None:
    assert ask("the mysqld agenda of this week").reason == "classified"


@pytest.mark.parametrize(
    "text", ["yes, go on", "да, продолжай", "ok", "継続", "👍", "...", "weiter bitte", "oui, continue"]
)
def test_short_replies_stay_with_the_thread(text) -> None:
    assert decided(ask(text, current_role="lawyer")) == ("lawyer", "reply")


def test_a_reply_without_a_thread_is_classified() -> None:
    assert ask("yes, go on").reason == "classified"


def test_an_answer_to_a_question_asked_back_is_taken() -> None:
    assert decided(ask("the artist, please", offered=("coder", "artist"))) == ("artist", "answer")
    assert ask("the artist or the coder", offered=("coder", "artist")).reason != "answer"


@pytest.mark.parametrize(
    ("reaction", "expected"),
    [
        ("base", (None, "fallback:unknown")),
        ({"do": "role", "role": "lawyer"}, ("lawyer", "fallback:unknown")),
        ("stay", ("artist", "fallback:unknown")),
        ("ask", (None, "ask")),
        ("refuse", (None, "refuse")),
    ],
)
def test_what_fits_no_role_gets_the_configured_reaction(reaction, expected) -> None:
    router = {"on_unknown": reaction}
    assert decided(ask(found=intent(in_scope=False), router=router, current_role="artist")) == expected


def test_the_question_names_both_and_the_refusal_all() -> None:
    asked = ask(found=intent(0.5, 0.45, 0.05))
    assert (asked.question, asked.explanation["offered"]) == (
        "Did you mean The Coder or The Artist?",
        ["coder", "artist"],
    )
    refused = ask(found=intent(in_scope=False), router={"on_unknown": "refuse"})
    assert refused.question == "None of my roles covers this. I can help as The Coder, The Artist, lawyer."


def test_a_close_call_can_take_the_first_or_stay() -> None:
    close = intent(0.5, 0.45, 0.05)
    assert decided(ask(found=close, router={"on_ambiguous": "first"})) == ("coder", "fallback:ambiguous")
    settings = {"on_ambiguous": "stay", "session_prior": {"kind": "none"}}
    assert decided(ask(found=close, router=settings, current_role="lawyer")) == (
        "lawyer",
        "fallback:ambiguous",
    )


def test_the_present_role_keeps_a_close_call() -> None:
    selection = ask(found=intent(0.4, 0.5, 0.1, margin=0.05), current_role="coder")
    assert decided(selection) == ("coder", "prior")
    assert selection.explanation["prior"]["kind"] == "tempered"


def test_after_an_idle_gap_the_present_role_counts_for_nothing() -> None:
    found = intent(0.4, 0.5, 0.1, margin=0.05)
    assert decided(ask(found=found, current_role="coder", idle=3600)) == ("artist", "classified")


def test_a_margin_prior_holds_back_a_newcomer_that_leads_by_little() -> None:
    router = {"session_prior": {"kind": "margin", "lead": 0.2}}
    assert decided(ask(found=intent(0.4, 0.5, 0.1), router=router, current_role="coder")) == (
        "coder",
        "prior",
    )
    found = intent(0.3, 0.6, 0.1)
    assert decided(ask(found=found, router=router, current_role="coder")) == ("artist", "classified")


def test_a_cold_adapter_gives_way_unless_it_was_asked_for() -> None:
    router = {"on_cold": {"budget": "2s", "do": "role", "role": "artist"}}
    assert decided(ask(router=router, waits={"coder": 5.0})) == ("artist", "fallback:cold")
    assert decided(ask(router=router, waits={"coder": 1.0})) == ("coder", "classified")
    assert decided(ask(router=router, waits={"coder": 5.0}, wanted_role="coder")) == ("coder", "explicit")


@pytest.mark.parametrize(
    ("name", "role"),
    [
        (None, None),
        ("agentflow", None),
        ("agentflow/auto", None),
        ("", None),
        ("agentflow/coder", "coder"),
        ("coder", "coder"),
    ],
)
def test_model_ids_and_role_names_mean_the_same(name, role) -> None:
    assert wanted(name) == role


def test_an_unknown_role_is_refused_with_the_names_that_exist() -> None:
    with pytest.raises(UnknownRole, match="Roles: artist, coder, lawyer") as caught:
        ask(wanted_role="agentflow/poet")
    assert (caught.value.field, caught.value.value) == ("role", "agentflow/poet")


def test_the_base_model_can_be_asked_for() -> None:
    assert decided(ask(wanted_role="agentflow/base")) == (None, "explicit")


def test_meaning_is_not_needed_where_the_decision_falls_before() -> None:
    settings = RouterSettings()
    assert not needs_meaning(SelectInput("/coder x", {}, ROLES, settings))
    assert needs_meaning(SelectInput("what is this about?", {}, ROLES, settings))


SCORES = st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 1), min_size=1).map(
    lambda raw: {key: value / max(sum(raw.values()), 1.0) for key, value in raw.items()}
)


@given(scores=SCORES, stay=st.floats(0.2, 0.95), beta=st.floats(0, 1))
def test_the_prior_never_changes_the_order_of_the_others(scores, stay, beta) -> None:
    current = min(scores)
    weighed = weigh(scores, current, 6, SessionPrior(stay=stay, beta=beta), 0.0).scores
    others = [key for key in scores if key != current]
    assert sum(weighed.values()) <= 1 + 1e-9
    assert all(weighed[a] >= weighed[b] for a in others for b in others if scores[a] >= scores[b])


@given(scores=SCORES)
def test_the_present_role_is_never_held_back_from_itself(scores) -> None:
    best = max(scores, key=scores.__getitem__)
    assert not held_back(scores, best, SessionPrior(kind="margin", lead=0.9), 0.0)
