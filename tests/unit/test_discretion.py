"""Errors as they are told to those who shall not read what they say."""

import pytest

from agentflow.runs.discretion import discreet, kind_of
from agentflow.settings.schema import Server


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("secret"), "ValueError"), ("ValueError('secret')", "ValueError"), ("KeyError", "KeyError"),
        ("my.Error('secret')", "my.Error"), ("secret words", "Error"), ("", "Error"),
    ],
)  # fmt: skip
def test_an_error_is_its_name(error: object, kind: str) -> None:
    assert kind_of(error) == kind


def test_only_errors_are_taken_out_wherever_they_are_told() -> None:
    task = {"name": "n", "error": "ValueError('secret')", "result": {"error": "what the graph says"}}
    told = {
        "type": "task_result",
        "payload": task,
        "tasks": [task],
        "values": {"error": "mine"},
        "error": None,
    }
    quiet = {**task, "error": "ValueError"}
    assert discreet(told) == {**told, "payload": quiet, "tasks": [quiet]}
    assert discreet("text") == "text"


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({}, None), ({"host": "10.0.0.1"}, False), ({"api_key": "k"}, False), ({"graph_errors": "hidden"}, False),
        ({"graph_errors": "shown", "host": "10.0.0.1"}, True), ({"graph_errors": ["a"]}, True),
        ({"graph_errors": ["b"]}, False),
    ],
)  # fmt: skip
def test_the_settings_say_whose_errors_are_shown(settings: dict, shown: bool | None) -> None:
    assert Server(**settings).shows_errors_of("a") is shown
