"""Tool calls and structured answers of fake engines: made from the schema, filled with the question."""

import json
from collections.abc import Sequence

from agentflow.fakes.voices import question
from agentflow.prompt import ChatMessage
from agentflow.turn import Json


def called(messages: Sequence[ChatMessage], tools: Sequence[Json], choice: str | Json | None) -> list[Json]:
    """The call that the client insists on, or that the last message names ("... call the tool"), if any."""
    functions = {one["function"]["name"]: one["function"] for one in tools if "function" in one}
    if not functions or choice == "none" or messages[-1]["role"] == "tool":
        return []
    text = question(messages[-1]["content"])
    mentioned = next((name for name in functions if name in text), None)
    name = mentioned or (next(iter(functions)) if "call the tool" in text.lower() else None)
    if choice == "required":
        name = name or next(iter(functions))
    if isinstance(choice, dict):
        name = choice["function"]["name"]
    if name is None:
        return []
    arguments = filled(functions[name].get("parameters") or {}, text)
    return [
        {
            "id": f"call_{len(messages)}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
    ]


def structured(text: str, response_format: Json | None) -> str:
    """The text in the form asked for."""
    match (response_format or {}).get("type"):
        case "json_schema":
            schema = (response_format or {}).get("json_schema", {}).get("schema") or {}
            return json.dumps(filled(schema, text))
        case "json_object":
            return json.dumps({"answer": text})
        case _:
            return text


def filled(schema: Json, text: str) -> object:
    """The smallest value of a JSON schema; its strings are the text."""
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            return {name: filled(one, text) for name, one in schema.get("properties", {}).items()}
        case "array":
            return [filled(schema.get("items", {}), text)]
        case "integer" | "number":
            return 1
        case "boolean":
            return True
        case _:
            return text


def deltas(calls: Sequence[Json]) -> list[Json]:
    """Calls as a stream tells them: the name first, then the arguments in two parts."""
    told: list[Json] = []
    for index, call in enumerate(calls):
        function = call["function"]
        head, tail = function["arguments"][:5], function["arguments"][5:]
        told += [
            {**call, "index": index, "function": {"name": function["name"], "arguments": ""}},
            {"index": index, "function": {"arguments": head}},
            {"index": index, "function": {"arguments": tail}},
        ]
    return told
