"""The fitted classifier: what can be relied on whatever the examples are."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.errors import ConfigError
from agentflow.routing.classifier import Example, examples_of, fit
from agentflow.routing.evidence import Evidence
from agentflow.routing.roles import IntentExamples, RoleExamples
from agentflow.settings.routing import RouterSettings

UNSEEN = ["my python function fails", "paint the castle", "what is a good life", "zzz qqq", "12:30 to York?"]
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=60)


def chances(classifier, vectors_of, texts=UNSEEN):
    return classifier.score(vectors_of(texts), texts)


def test_messages_go_to_the_role_whose_examples_they_resemble(three, vectors_of) -> None:
    scored = chances(three, vectors_of, UNSEEN[:3])
    assert [three.roles[best] for best in scored.chances.argmax(axis=1)] == ["coder", "artist", "philosopher"]
    assert (scored.scope >= three.thresholds.scope).all()


def test_what_resembles_nothing_is_out_of_scope(three, vectors_of) -> None:
    assert (chances(three, vectors_of, ["zzz qqq", "12:30 to York?"]).scope < three.thresholds.scope).all()


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(18)))
def test_order_of_roles_and_examples_changes_nothing_bitwise(order, roles, three, vectors_of) -> None:
    examples = examples_of(roles, RouterSettings())
    shuffled = [examples[place] for place in order]
    texts = [one.text for one in shuffled]
    again = fit(shuffled, dict(zip(texts, vectors_of(texts), strict=True)), RouterSettings())
    ours, theirs = chances(three, vectors_of), chances(again, vectors_of)
    assert ours.chances.tobytes() == theirs.chances.tobytes()
    assert ours.scope.tobytes() == theirs.scope.tobytes()
    assert again.thresholds == three.thresholds


@settings(max_examples=60, deadline=None)
@given(text=TEXT, gone=st.sampled_from(["coder", "artist", "philosopher"]))
def test_removing_a_role_never_changes_who_wins_among_the_others(text, gone, three, vectors_of) -> None:
    before = chances(three, vectors_of, [text]).chances[0]
    rest = three.without(gone)
    after = chances(rest, vectors_of, [text]).chances[0]
    kept = [before[place] for place, role in enumerate(three.roles) if role != gone]
    assert rest.roles == tuple(role for role in three.roles if role != gone)
    np.testing.assert_allclose(after, np.array(kept) / sum(kept), rtol=1e-4, atol=1e-7)


@settings(max_examples=60, deadline=None)
@given(text=TEXT)
def test_scores_are_finite_chances_for_any_text(text, three, vectors_of) -> None:
    scored = chances(three, vectors_of, [text])
    assert np.isfinite(scored.scope).all()
    assert np.isfinite(scored.chances).all()
    assert scored.chances.sum() == pytest.approx(1.0)


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(1, 4), min_size=1, max_size=5), data=st.data())
def test_any_number_of_roles_and_examples_can_be_fitted(counts, data, fit_roles, vectors_of) -> None:
    texts = iter(data.draw(st.lists(TEXT.filter(str.strip), min_size=20, max_size=20, unique_by=str.strip)))
    roles = [
        RoleExamples(f"r{place}", examples=tuple(next(texts) for _ in range(count)))
        for place, count in enumerate(counts)
    ]
    scored = chances(fit_roles(roles), vectors_of, ["hello there"])
    assert np.isfinite(scored.chances).all()
    assert np.isfinite(scored.scope).all()


def test_the_number_of_examples_does_not_favour_a_role(fit_roles, vectors_of) -> None:
    def place(number: int) -> str:
        return f"book a flight to town number {number}"

    many = RoleExamples("travel", examples=tuple(place(number) for number in range(60)))
    few = RoleExamples("music", examples=("play a song by the band", "play the next song"))
    scored = chances(fit_roles([many, few]), vectors_of, ["play a song", "book a flight"])
    assert scored.chances.argmax(axis=1).tolist() == [0, 1]


def test_intents_of_a_role_count_together(fit_roles, vectors_of) -> None:
    assistant = RoleExamples(
        "assistant",
        intents=(
            IntentExamples("alarm", "wake me", ("wake me at seven", "set an alarm for noon")),
            IntentExamples("music", "play songs", ("play some jazz", "play the next song")),
        ),
    )
    other = RoleExamples("lawyer", examples=("draft a contract", "is this clause valid"))
    classifier = fit_roles([assistant, other])
    scored = chances(classifier, vectors_of, ["set an alarm", "play jazz", "check the contract clause"])
    assert classifier.roles == ("assistant", "lawyer")
    assert scored.chances.argmax(axis=1).tolist() == [0, 0, 1]


def test_examples_of_what_no_role_does_are_out_of_scope(roles, fit_roles, vectors_of) -> None:
    outside = ("what is the weather in paris", "will it rain in paris today", "is it sunny in rome")
    classifier = fit_roles(roles, out_of_scope=outside)
    scored = chances(classifier, vectors_of, ["will it rain in rome", "fix my python class"])
    assert (scored.scope >= classifier.thresholds.scope).tolist() == [False, True]


def test_one_example_per_role_is_enough_to_start(fit_roles, vectors_of) -> None:
    roles = [RoleExamples("coder", "python code and functions"), RoleExamples("artist", "painting pictures")]
    classifier = fit_roles(roles)
    scored = chances(classifier, vectors_of, ["a python function", "a picture to paint"])
    assert [classifier.roles[best] for best in scored.chances.argmax(axis=1)] == ["coder", "artist"]
    assert classifier.thresholds.sample == 0
    assert (scored.scope >= classifier.thresholds.scope).all()
    assert chances(classifier, vectors_of, ["12345"]).scope[0] < classifier.thresholds.scope


def test_russian_roles_are_told_apart_by_letters_where_the_embedder_is_blind(fit_roles) -> None:
    cook = (
        "как сварить борщ",
        "рецепт пирога с яблоками",
        "сколько варить яйца",
        "чем заменить сливки в супе",
    )
    driver = (
        "какое масло залить в двигатель",
        "стучит подвеска",
        "как поменять колесо",
        "машина не заводится",
    )
    roles = [RoleExamples("повар", examples=cook), RoleExamples("механик", examples=driver)]
    examples = examples_of(roles, RouterSettings())
    blind = np.full(8, 8**-0.5, np.float32)
    classifier = fit(examples, {one.text: blind for one in examples}, RouterSettings())
    asked = ["сварить суп с яблоками", "поменять масло в машине"]
    scored = classifier.score(np.stack([blind, blind]), asked)
    assert [classifier.roles[best] for best in scored.chances.argmax(axis=1)] == ["повар", "механик"]
    assert classifier.space.name != "hybrid:0.5"


def test_a_role_with_nothing_said_about_it_is_refused() -> None:
    with pytest.raises(ConfigError, match="neither a description nor examples") as caught:
        examples_of([RoleExamples("mute")], RouterSettings())
    assert caught.value.field == "roles.mute.examples"


def test_the_same_example_in_two_roles_is_refused() -> None:
    roles = [RoleExamples("a", examples=("hello",)), RoleExamples("b", examples=("hello",))]
    with pytest.raises(ConfigError, match="'hello' is an example of both a and b"):
        examples_of(roles, RouterSettings())


def test_no_roles_at_all_are_refused() -> None:
    with pytest.raises(ConfigError, match="no example of any role"):
        fit(
            [Example("", "", "rain")],
            {"rain": np.ones(4, np.float32)},
            RouterSettings(out_of_scope=("rain",)),
        )


def test_the_last_role_cannot_be_taken_away(fit_roles) -> None:
    with pytest.raises(ConfigError, match="last role"):
        fit_roles([RoleExamples("only", "one thing")]).without("only")


def left_out_by_refitting(roles, example, fit_roles) -> Evidence:
    rest = [
        replace(role, examples=tuple(text for text in role.examples if text != example.text))
        for role in roles
    ]
    return fit_roles(rest, features="meaning")


def test_closed_form_left_out_evidence_is_what_refitting_gives(roles, fit_roles, vectors_of) -> None:
    classifier = fit_roles(roles, features="meaning")
    for place in (0, 7, 17):
        example = classifier.examples[place]
        refitted = left_out_by_refitting(roles, example, fit_roles)
        truth, _ = refitted.model.evidence(refitted.space.place(vectors_of([example.text]), [example.text]))
        closed = [part[place] for part in classifier.left_out.evidence.parts]
        np.testing.assert_allclose(closed[0], truth.discriminant[0], rtol=0.06, atol=1.0)
        np.testing.assert_allclose(closed[1], truth.regression[0], atol=0.25)
        np.testing.assert_allclose(closed[2], truth.nearest[0], atol=1e-5)
        np.testing.assert_allclose(closed[3], truth.mean[0], atol=1e-5)


@pytest.mark.parametrize("gone", ["coder", "artist", "philosopher"])
def test_fitting_again_without_a_role_changes_close_calls_only(
    gone, roles, three, fit_roles, vectors_of
) -> None:
    texts = [example.text for example in three.examples if example.role != gone]
    kept = [place for place, role in enumerate(three.roles) if role != gone]
    before = chances(three, vectors_of, texts).chances[:, kept]
    after = chances(fit_roles([role for role in roles if role.name != gone]), vectors_of, texts).chances
    lead = abs(before[:, 0] - before[:, 1])
    changed = before.argmax(axis=1) != after.argmax(axis=1)
    assert (lead[changed] < three.thresholds.margin).all()


def test_a_text_longer_than_any_message_is_decided(three, vectors_of) -> None:
    text = "fix this python function " * 4000
    assert chances(three, vectors_of, [text]).chances.argmax() == three.roles.index("coder")
