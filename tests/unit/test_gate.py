"""The gate: who may pass, as whom, and how those who may not are told."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request

from agentflow.api.keys import EVERYTHING, Caller, Gate, caller, needed
from agentflow.errors import DatabaseDown
from agentflow.records.keys import Key, digest_of

CHAT = "af_chat"
ADMIN = "af_admin"


class FakeKeys:
    """The table of keys in a dictionary; counts how often it is asked."""

    def __init__(self) -> None:
        self.rows: dict[str, Key] = {}
        self.asked = 0
        self.down = False

    def add(self, key: str, *scopes: str, user: str = "ann") -> None:
        self.rows[key] = Key(f"id of {key}", 7, user, key, frozenset(scopes), digest_of(key))

    async def find(self, key: str) -> Key | None:
        self.asked += 1
        if self.down:
            raise DatabaseDown("Postgres does not answer.", retry_after=2)
        return self.rows.get(key)

    async def any(self) -> bool:
        if self.down:
            raise DatabaseDown("Postgres does not answer.")
        return bool(self.rows)


class World:
    def __init__(self, **gate: Any) -> None:
        self.keys, self.now = FakeKeys(), 0.0
        app = FastAPI()

        @app.api_route("/{path:path}", methods=["GET", "POST", "PUT"])
        async def everything(request: Request) -> dict[str, Any]:
            who = caller(request)
            return {"tenant": who.tenant, "user": who.user, "scopes": sorted(who.scopes)}

        self.gate = Gate(app, self.keys, clock=lambda: self.now, **gate)

    async def ask(self, path: str = "/invoke", method: str = "POST", **headers: str) -> httpx.Response:
        transport = httpx.ASGITransport(self.gate)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return await client.request(method, path, headers=named)


@pytest.fixture
def world() -> World:
    made = World()
    made.keys.add(CHAT, "chat")
    made.keys.add(ADMIN, *EVERYTHING)
    return made


async def test_a_key_opens_under_either_header_and_says_who_is_asking(world: World) -> None:
    expected = {"tenant": 7, "user": "ann", "scopes": ["chat"]}
    assert (await world.ask(authorization=f"Bearer {CHAT}")).json() == expected
    assert (await world.ask(x_api_key=CHAT)).json() == expected


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x_api_key": ""},
        {"x_api_key": "af_other"},
        {"x_api_key": CHAT[:-1]},
        {"authorization": "Bearer "},
        {"authorization": f"Basic {CHAT}"},
        {"authorization": "Bearer a.b.c"},
    ],
)
async def test_nothing_else_opens(world: World, headers: dict[str, str]) -> None:
    refused = await world.ask(**headers)
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert refused.json()["error"] == "Unauthorized"


async def test_a_key_reaches_as_far_as_its_scopes(world: World) -> None:
    for method, path, status in (
        ("POST", "/invoke", 200), ("POST", "/v1/chat/completions", 200), ("GET", "/info", 200),
        ("POST", "/runs/wait", 200),
        ("POST", "/threads", 403), ("GET", "/memory", 403), ("GET", "/metrics", 403), ("POST", "/feedback/1", 403),
        ("PUT", "/residency/coder", 403), ("GET", "/residency", 200), ("POST", "/something/new", 403),
    ):  # fmt: skip
        assert ((await world.ask(path, method, x_api_key=CHAT)).status_code, path) == (status, path)
        assert (await world.ask(path, method, x_api_key=ADMIN)).status_code == 200


async def test_the_protocol_s_clients_are_refused_in_their_shape(world: World) -> None:
    refused = await world.ask("/threads/search", x_api_key=CHAT)
    assert refused.json() == {"detail": "This key lacks the scope threads, which this address needs."}


async def test_only_a_key_that_may_speak_for_users_names_one(world: World) -> None:
    assert (await world.ask(x_api_key=CHAT, x_agentflow_user="bob")).json()["user"] == "ann"
    assert (await world.ask(x_api_key=ADMIN, x_agentflow_user="bob")).json()["user"] == "bob"


async def test_health_and_preflights_need_nothing(world: World) -> None:
    assert (await world.ask("/health", "GET")).status_code == 200
    assert (await world.ask("/invoke", "OPTIONS")).status_code == 405


async def test_the_key_of_the_file_may_do_everything() -> None:
    world = World(api_key="simple")
    assert (await world.ask("/feedback/1", x_api_key="simple")).json() == {
        "tenant": 0,
        "user": "default",
        "scopes": sorted(EVERYTHING),
    }
    assert (await world.ask(x_api_key="simpl")).status_code == 401


async def test_a_loopback_server_is_open_until_the_first_key_and_closed_for_good_after_it() -> None:
    world = World(closed=False)
    assert (await world.ask(x_api_key="lsv2_of_another_product")).json()["user"] == Caller().user
    world.keys.add(CHAT, "chat")
    world.now += 6
    assert (await world.ask()).status_code == 401
    world.keys.rows.clear()
    world.now += 60
    assert (await world.ask()).status_code == 401


async def test_a_key_is_asked_for_once_in_a_while_whether_it_is_known_or_not(world: World) -> None:
    for _ in range(5):
        await world.ask(x_api_key=CHAT)
        await world.ask(x_api_key="af_unknown")
    assert world.keys.asked == 2
    del world.keys.rows[CHAT]
    world.now += 6
    assert (await world.ask(x_api_key=CHAT)).status_code == 401


async def test_a_database_that_is_down_is_told_as_that(world: World) -> None:
    world.keys.down = True
    refused = await world.ask(x_api_key=CHAT)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")


def test_what_is_not_listed_needs_an_admin() -> None:
    assert needed("GET", "/a/door/to/come") == {"admin"}
    assert needed("POST", "/routes") == {"admin"}
