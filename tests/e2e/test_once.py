"""`Idempotency-Key` at every address that changes something and makes no run: one effect, one answer."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from agentflow.api.once import changes, claimed

GRAPHS = Path(__file__).parent / "graphs" / "langgraph.json"
AGENT = {"assistant_id": "agent"}
SAID = {"messages": [{"role": "user", "content": "What is a cron?"}]}
CRON = {**AGENT, "schedule": "0 0 1 1 *", "input": SAID}


@pytest.fixture(scope="module")
def served(founded) -> str:
    house = founded("")
    house.start("--graphs", str(GRAPHS)).close()
    return house.address


async def asked(http: httpx.AsyncClient, path: str, body: object, key: str, **more: str) -> httpx.Response:
    return await http.post(path, json=body, headers={"Idempotency-Key": key, **more})


async def a_thread(http: httpx.AsyncClient) -> str:
    return (await http.post("/threads", json={})).json()["thread_id"]


async def all_of(http: httpx.AsyncClient, what: str) -> int:
    return (await http.post(f"{what}/count", json={})).json()


COUNTED = {
    "/threads": ("/threads", {}),
    "/threads/T/copy": ("/threads", {}),
    "/assistants": ("/assistants", {"graph_id": "agent"}),
    "/runs/crons": ("/runs/crons", CRON),
    "/threads/T/runs/crons": ("/runs/crons", CRON),
}


@pytest.mark.parametrize("path", COUNTED)
async def test_what_is_made_is_made_once(http: httpx.AsyncClient, path: str) -> None:
    what, body = COUNTED[path]
    path, key = path.replace("T", await a_thread(http)), uuid4().hex
    before = await all_of(http, what)
    first, again = [await asked(http, path, body, key) for _ in range(2)]
    assert (first.status_code, first.content) == (again.status_code, again.content)
    assert first.is_success
    assert [one.headers.get("idempotent-replayed") for one in (first, again)] == [None, "true"]
    assert await all_of(http, what) == before + 1


@pytest.mark.parametrize("path", COUNTED)
async def test_four_at_once_have_one_effect(http: httpx.AsyncClient, path: str) -> None:
    what, body = COUNTED[path]
    path, key = path.replace("T", await a_thread(http)), uuid4().hex
    before = await all_of(http, what)
    found = await asyncio.gather(*[asked(http, path, body, key) for _ in range(4)])
    assert await all_of(http, what) == before + 1
    done, busy = [one for one in found if one.is_success], [one for one in found if not one.is_success]
    assert len({one.content for one in done}) == 1
    assert {(one.status_code, one.headers["retry-after"]) for one in busy} <= {(409, "1")}


async def test_another_body_or_address_under_the_key_is_a_conflict(http: httpx.AsyncClient) -> None:
    key = uuid4().hex
    assert (await asked(http, "/runs/crons", CRON, key)).is_success
    told = {"detail": f"The idempotency key '{key}' was used for another request; use a new key."}
    for path, body in (("/runs/crons", {**CRON, "schedule": "0 0 2 1 *"}), ("/threads", CRON)):
        refused = await asked(http, path, body, key)
        assert (refused.status_code, refused.json()) == (409, told)


async def test_others_have_keys_of_their_own(http: httpx.AsyncClient) -> None:
    key = uuid4().hex
    made = [await asked(http, "/threads", {}, key, **{"X-Agentflow-User": name}) for name in ("ann", "bob")]
    assert len({one.json()["thread_id"] for one in made}) == 2


async def test_a_refusal_does_not_use_up_the_key(http: httpx.AsyncClient) -> None:
    key = uuid4().hex
    assert (await asked(http, "/runs/crons", {**CRON, "schedule": "never"}, key)).status_code == 422
    assert (await asked(http, "/runs/crons", CRON, key)).is_success


@pytest.mark.parametrize("key", ["", "k" * 256])
async def test_a_key_is_of_bounded_length(http: httpx.AsyncClient, key: str) -> None:
    refused = await asked(http, "/threads", {}, key)
    assert (refused.status_code, refused.json()) == (
        422,
        {"detail": "Idempotency-Key has between 1 and 255 characters."},
    )


async def test_a_state_is_changed_once(http: httpx.AsyncClient) -> None:
    thread, body = await a_thread(http), {"values": {"notes": ["changed"]}, "as_node": "gather"}
    await http.post(f"/threads/{thread}/runs/wait", json={"assistant_id": "five_steps", "input": SAID})
    before = len((await http.get(f"/threads/{thread}/history?limit=50")).json())
    key = uuid4().hex
    first, again = [await asked(http, f"/threads/{thread}/state", body, key) for _ in range(2)]
    assert (first.status_code, first.json()) == (200, again.json())
    assert len((await http.get(f"/threads/{thread}/history?limit=50")).json()) == before + 1


async def test_what_was_removed_is_removed_again(http: httpx.AsyncClient) -> None:
    thread, key = await a_thread(http), {"Idempotency-Key": uuid4().hex}
    assert [(await http.delete(f"/threads/{thread}", headers=key)).status_code for _ in range(3)] == [204] * 3


async def test_an_item_is_stored_once_whatever_came_after(http: httpx.AsyncClient) -> None:
    item, key = {"namespace": ["n"], "key": uuid4().hex}, {"Idempotency-Key": uuid4().hex}
    old, new = {**item, "value": {"v": 1}}, {**item, "value": {"v": 2}}
    assert (await http.put("/store/items", json=old, headers=key)).status_code == 204
    await http.put("/store/items", json=new)
    assert (await http.put("/store/items", json=old, headers=key)).status_code == 204
    found = await http.get("/store/items", params={"namespace": "n", "key": item["key"]})
    assert found.json()["value"] == {"v": 2}


async def test_forgetting_again_shows_the_first_receipt(http: httpx.AsyncClient) -> None:
    await http.post("/invoke", json={"input": "My heron is called Otto", "role": "coder"})
    key, body = uuid4().hex, {"text": "heron"}
    first, again = [await asked(http, "/memory/forget", body, key) for _ in range(2)]
    assert first.json()["counts"]["memories"] > 0
    assert first.json() == again.json()


async def test_a_memory_is_edited_once(http: httpx.AsyncClient) -> None:
    await http.post("/invoke", json={"input": "My newt is called Ada", "role": "coder"})
    (number,) = [
        one["id"] for one in (await http.get("/memory")).json()["memories"] if "newt" in one["content"]
    ][:1]
    path, key = f"/memory/{number}", {"Idempotency-Key": uuid4().hex}
    first = await http.patch(path, json={"content": "My newt is called Bea"}, headers=key)
    await http.patch(path, json={"content": "My newt is called Cleo"})
    again = await http.patch(path, json={"content": "My newt is called Bea"}, headers=key)
    assert (first.json(), again.headers["idempotent-replayed"]) == (again.json(), "true")
    assert (await http.get(path)).json()["content"] == "My newt is called Cleo"


async def test_a_document_is_the_same_whatever_parts_its_form(http: httpx.AsyncClient) -> None:
    """Every client makes up a new boundary for every try."""
    key = {"Idempotency-Key": uuid4().hex}
    first, again = [
        await http.post("/memory/documents", files={"file": ("a.txt", "Herons eat fish.")}, headers=key)
        for _ in range(2)
    ]
    assert first.request.headers["content-type"] != again.request.headers["content-type"]
    assert (first.json(), again.headers.get("idempotent-replayed")) == (again.json(), "true")


async def test_a_correction_counts_once(http: httpx.AsyncClient) -> None:
    run = (await http.post("/invoke", json={"input": "What is justice?", "role": "coder"})).json()["run_id"]
    path, key = f"/turns/{run}/feedback", uuid4().hex
    first = await asked(http, path, {"role": "philosopher"}, key)
    again = await asked(http, path, {"role": "philosopher"}, key)
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert again.headers["idempotent-replayed"] == "true"


BARE: dict[str, Callable[[str], dict]] = {
    "/v1/chat/completions": lambda text: {"messages": [{"role": "user", "content": text}]},
    "/v1/responses": lambda text: {"input": text},
}


@pytest.mark.parametrize("path", BARE)
async def test_the_bare_base_model_is_asked_once(http: httpx.AsyncClient, path: str) -> None:
    models = (await http.get("/v1/models")).json()["data"]
    bare = {"model": next(one["id"] for one in models if not one["id"].startswith("agentflow"))}
    key = uuid4().hex
    first, again = [await asked(http, path, {**bare, **BARE[path]("hello")}, key) for _ in range(2)]
    assert first.json() == again.json()
    told = ("x-agentflow-kind", "idempotent-replayed")
    assert [[one.headers.get(name) for name in told] for one in (first, again)] == [
        ["bare", None],
        ["bare", "true"],
    ]
    refused = await asked(http, path, {**bare, **BARE[path]("goodbye")}, key)
    assert (refused.status_code, refused.json()["error"]["type"]) == (409, "conflict_error")


async def test_every_address_that_changes_something_says_that_it_takes_a_key(http: httpx.AsyncClient) -> None:
    paths = (await http.get("/openapi.json")).json()["paths"]
    takes = {
        (method, path)
        for path, methods in paths.items()
        for method, one in methods.items()
        if any(given["name"].lower() == "idempotency-key" for given in one.get("parameters", []))
    }
    every = {(method, path) for path, methods in paths.items() for method in methods}
    assert takes == {one for one in every if changes(*one)}
    assert {path for method, path in takes if not claimed(method, path)} == {
        "/invoke",
        "/mcp",
        "/a2a/{assistant_id}",
        "/v1/chat/completions",
        "/v1/responses",
        "/threads/{thread_id}/commands",
        *(f"{where}/runs{how}" for where in ("", "/threads/{thread_id}") for how in ("", "/wait", "/stream")),
        "/runs/batch",
    }


@pytest.mark.parametrize("path", ["/threads", "/v1/embeddings", "/memory/forget"])
async def test_a_body_over_its_limit_is_refused_with_a_key_too(http: httpx.AsyncClient, path: str) -> None:
    huge = {"metadata": {"text": "x" * 40_000_000}}
    with_key, without = await asked(http, path, huge, uuid4().hex), await http.post(path, json=huge)
    assert (with_key.status_code, with_key.content) == (413, without.content)
