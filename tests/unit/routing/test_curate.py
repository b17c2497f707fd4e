"""What is said about examples and about mistakes."""

import numpy as np
import pytest

from agentflow.routing.curate import inspect, tune
from agentflow.routing.matrix import picture, table
from agentflow.routing.report import Labelled, as_json, evaluate, evaluate_left_out
from agentflow.routing.roles import RoleExamples

SAID = [
    Labelled("fix my python class", "coder"),
    Labelled("paint the sea", "artist"),
    Labelled("draw two cats", "philosopher"),
    Labelled("zzz qqq", None),
]


@pytest.fixture(scope="module")
def report(three, vectors_of):
    return evaluate(three, SAID, vectors_of([one.text for one in SAID]))


def test_a_report_counts_right_rejected_and_confused(report) -> None:
    assert report.roles == ("artist", "coder", "philosopher")
    assert (report.accuracy, report.kept, report.outside_caught, report.auroc) == (0.6667, 1.0, 1.0, 1.0)
    assert report.matrix.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
    worst = report.worst[0]
    assert (worst.truth, worst.said, worst.count) == ("philosopher", "artist", 1)
    assert worst.examples[0].text == "draw two cats"


def test_a_report_is_plain_json(report) -> None:
    found = as_json(report)
    assert found["matrix"] == report.matrix.tolist()
    assert found["worst"][0]["examples"][0]["text"] == "draw two cats"


def test_the_matrix_reads_as_a_table(report) -> None:
    assert table(report, width=8).splitlines() == [
        "          artist   coder philoso    none",
        "artist         1       .       .       .",
        "coder          .       1       .       .",
        "philoso        1       .       .       .",
        "none           .       .       .       1",
    ]


def test_the_matrix_is_a_picture_whose_names_are_escaped(report) -> None:
    drawn = picture(report)
    assert drawn.startswith("<svg ")
    assert drawn.count("<rect") == 1 + 16
    assert drawn.count(">1</text>") == 4


def test_examples_left_out_give_a_report_of_their_own(three) -> None:
    report = evaluate_left_out(three)
    assert report.matrix.sum() == 18
    assert report.accuracy > 0.6


def test_with_one_example_each_nothing_can_be_left_out(fit_roles) -> None:
    classifier = fit_roles([RoleExamples("a", "red apples"), RoleExamples("b", "blue bananas")])
    assert (evaluate_left_out(classifier), tune(classifier)) == (None, [])


def test_the_same_words_in_two_roles_are_an_error_and_few_examples_a_warning(fit_roles) -> None:
    roles = [
        RoleExamples("a", examples=("Open the door", "close the door")),
        RoleExamples("b", examples=("open  THE door", "feed the cat")),
    ]
    found = inspect(roles, fit_roles(roles))
    assert (found[0].severity, found[0].role) == ("error", "b")
    assert "'open  THE door' says the same as 'Open the door' of a" in found[0].message
    few = [one for one in found if "only 2 examples" in one.message]
    assert [one.severity for one in few] == ["warning", "warning"]


def test_an_example_in_the_wrong_role_is_pointed_out(roles, fit_roles) -> None:
    coder, artist, thinker = roles
    wrong = RoleExamples(
        "philosopher", examples=(*thinker.examples, "write a python unit test for a function")
    )
    found = inspect([coder, artist, wrong], fit_roles([coder, artist, wrong]))
    hints = [one.message for one in found if one.severity == "hint" and one.role == "philosopher"]
    assert any("'write a python unit test for a function' reads like coder" in one for one in hints)


def test_a_stricter_rate_keeps_less(three) -> None:
    found = tune(three)
    assert [one.rate for one in found] == [0.01, 0.02, 0.05, 0.1, 0.15, 0.2]
    kept = [one.in_scope_kept for one in found]
    assert kept == sorted(kept, reverse=True)
    assert np.all(np.diff([one.threshold for one in found]) >= 0)
