"""The OpenAPI document: what FastAPI knows of the doors, and how each of them refuses."""

from typing import Any

from fastapi import FastAPI

from agentflow.api.once import KEY, changes
from agentflow.api.places import door, tells_detail
from agentflow.turn import Json

TEXT: Json = {"type": "string"}
DETAIL: Json = {"type": "object", "properties": {"detail": TEXT}, "required": ["detail"]}
PROBLEM: Json = {
    "type": "object",
    "properties": {"error": TEXT, "message": TEXT, "field": TEXT, "value": {}, "retry_after": {"type": "number"}},
    "required": ["error", "message"],
}  # fmt: skip
OF_OPENAI: Json = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {"message": TEXT, "type": TEXT, "param": {"type": ["string", "null"]}, "code": TEXT},
            "required": ["message", "type", "param", "code"],
        }
    },
    "required": ["error"],
}  # fmt: skip
ONCE: Json = {
    "name": "idempotency-key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": KEY},
    "description": "The same request with the same key is carried out once, and answered again as it was.",
}
OPEN = ("/health", "/ok")
"""What needs no credential."""
READS = ("get", "head")
ENGINE = (
    "/invoke",
    "/v1/chat/completions",
    "/v1/responses",
    "/residency/{role}/warm",
    "/residency/{role}/pin",
)
NAMING = (
    "/invoke",
    "/route",
    "/v1/chat/completions",
    "/v1/responses",
    "/runs/cancel",
    "/runs/crons",
    "/memory/forget",
    "/memory/documents",
    "/.well-known/agent-card.json",
)
"""Whose body or query names things that may not be there."""
WAYS: Json = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key of `agentflow keys`, or a token."},
    "key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
}
"""How a credential is shown; on loopback none is needed until the first key exists."""
WHY = {
    "400": "The request holds something impossible.",
    "401": "No credential, or one that opens nothing.",
    "403": "The credential lacks a scope, or a web page asks that may not.",
    "404": "There is no such thing for this caller.",
    "409": "It is in use, or was asked for otherwise before.",
    "413": "The body is over its limit.",
    "422": "The request holds something impossible.",
    "429": "A limit is reached; Retry-After says when to ask again.",
    "502": "The engine's answer cannot be used.",
    "503": "Something that is needed does not answer; Retry-After says when to ask again.",
    "504": "The engine took too long.",
}


def describe(app: FastAPI) -> None:
    """Add to the app's document what its requests are answered with when they are refused."""
    plain = app.openapi

    def whole() -> dict[str, Any]:
        known = app.openapi_schema is not None
        document = plain()
        if not known:
            _complete(document)
        return document

    app.openapi = whole  # type: ignore[method-assign] # FastAPI's own way to change the document


def _complete(document: Json) -> None:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    document["components"]["securitySchemes"] = WAYS
    schemas |= {"Detail": DETAIL, "Problem": PROBLEM, "OpenAIError": OF_OPENAI}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            schemas |= _hoisted(operation)
            if path not in OPEN:
                operation["security"] = [{way: []} for way in WAYS]
            if changes(method, path):
                _keyed(operation)
            body = {"schema": {"$ref": f"#/components/schemas/{_shape(path)}"}}
            answers = operation["responses"]
            answers.setdefault("400", {"description": "This is no HTTP."})
            answers.pop("422", None)
            for code in refusals(method, path, has_body="requestBody" in operation):
                answers.setdefault(code, {"description": WHY[code], "content": {"application/json": body}})


def _keyed(operation: Json) -> None:
    """What changes something takes an idempotency key, whether its function reads it or not."""
    parameters = operation.setdefault("parameters", [])
    if not any(one["name"] == ONCE["name"] for one in parameters):
        parameters.append(ONCE)


def refusals(method: str, path: str, *, has_body: bool) -> list[str]:
    """The statuses with which an operation may be refused."""
    bad = "400" if door(path) == "openai" else "422"
    reads = method in READS
    may = {
        "401": path not in OPEN,
        "403": path not in OPEN or not reads,
        "404": "{" in path or path in NAMING,
        "409": not reads,
        "413": has_body,
        bad: path != "/health",
        "429": path not in OPEN,
        "502": path in ENGINE,
        "503": path != "/health",
        "504": path in ENGINE,
    }
    return [code for code, applies in may.items() if applies]


def _shape(path: str) -> str:
    if door(path) == "openai":
        return "OpenAIError"
    return "Detail" if tells_detail(path) else "Problem"


def _hoisted(operation: Json) -> Json:
    """Schemas within a body that was described by hand, for the components."""
    content = operation.get("requestBody", {}).get("content", {}).values()
    return {name: one for media in content for name, one in media["schema"].pop("$defs", {}).items()}
