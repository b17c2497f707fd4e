"""The LangGraph Server protocol as its own SDK speaks it, against a served graph and against ours."""

import asyncio
import json
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import ConflictError, NotFoundError, UnprocessableEntityError
from websockets.asyncio.client import connect

pytestmark = pytest.mark.conformance
GRAPHS = Path(__file__).parent / "graphs" / "langgraph.json"
STUDIO = "https://smith.langchain.com"
G = "five_steps"
STEPS = ["sort", "cast", "gather", "speak", "file_away"]


@pytest.fixture(scope="module")
def served(founded) -> str:
    house = founded("egress: {allow: [127.0.0.1]}\n")
    house.start("--graphs", str(GRAPHS), "--studio").close()
    return house.address


def say(text: str) -> dict:
    return {"messages": [{"role": "user", "content": text}]}


def told(values: dict, kind: str = "human") -> list[str]:
    return [one["content"] for one in values["messages"] if one["type"] == kind]


async def thread(client: LangGraphClient) -> str:
    return (await client.threads.create())["thread_id"]


async def until(client: LangGraphClient, thread_id: str, run_id: str, status: str) -> None:
    async with asyncio.timeout(120):
        while (await client.runs.get(thread_id, run_id))["status"] != status:  # noqa: ASYNC110 - from outside
            await asyncio.sleep(0.05)


async def napping(client: LangGraphClient, thread_id: str) -> None:
    """Its run has come to the step that naps."""
    async with asyncio.timeout(60):
        while (await client.threads.get_state(thread_id))["next"] != ["gather"]:  # noqa: ASYNC110 - from outside
            await asyncio.sleep(0.05)


async def collected(events) -> list:
    return [one async for one in events]


async def test_every_graph_has_an_assistant_with_the_id_that_all_servers_give_it(client) -> None:
    found = {one["graph_id"]: one for one in await client.assistants.search(limit=50)}
    assert set(found) == {"agent", "five_steps", "made"}
    assert found["agent"]["assistant_id"] == "fe096781-5601-53d2-b2f6-0d3403f7e9ca"
    assert found["agent"]["metadata"] == {"created_by": "system"}


async def test_an_assistant_changes_in_versions_and_goes_back(client) -> None:
    made = await client.assistants.create(G, config={"configurable": {"k": 1}}, name="first")
    changed = await client.assistants.update(made["assistant_id"], config={"configurable": {"k": 2}})
    assert changed["version"] == 2
    back = await client.assistants.set_latest(made["assistant_id"], 1)
    assert (back["version"], back["config"]) == (1, {"configurable": {"k": 1}})
    await client.assistants.delete(made["assistant_id"])
    with pytest.raises(NotFoundError):
        await client.assistants.get(made["assistant_id"])


async def test_a_factory_of_an_uncompiled_graph_is_served_too(client) -> None:
    assert told(await client.runs.wait(None, "made", input=say("hi")), "ai") == ["heard: hi ['one']"]


async def test_a_thread_keeps_what_was_said(client) -> None:
    one = await thread(client)
    await client.runs.wait(one, G, input=say("first"))
    assert told(await client.runs.wait(one, G, input=say("second"))) == ["first", "second"]
    found = await client.threads.get(one)
    assert (found["status"], found["metadata"]["graph_id"]) == ("idle", G)


async def test_updates_come_in_the_order_of_the_steps(client) -> None:
    events = await collected(
        client.runs.stream(await thread(client), G, input=say("hi"), stream_mode="updates")
    )
    assert events[0].event == "metadata"
    assert [next(iter(one.data)) for one in events[1:]] == STEPS


async def test_tokens_are_streamed_with_the_step_that_said_them(client) -> None:
    one = await thread(client)
    events = await collected(client.runs.stream(one, G, input=say("hi"), stream_mode="messages-tuple"))
    parts = [event.data for event in events if event.event == "messages"]
    assert len(parts) > 1
    assert "".join(message["content"] for message, _ in parts) == "heard: hi ['one']"
    assert {metadata["langgraph_node"] for _, metadata in parts} == {"speak"}


async def test_what_a_node_raises_is_told_and_stays_with_the_thread(client) -> None:
    one = await thread(client)
    events = await collected(client.runs.stream(one, G, input=say("break"), stream_mode="values"))
    assert events[-1].event == "error"
    assert events[-1].data == {"error": "ValueError", "message": "it broke as asked"}
    found = await client.threads.get(one)
    assert (found["status"], found["error"]["message"]) == ("error", "it broke as asked")
    assert (told(found["values"]), found["values"]["voice"]) == (["break"], "plain")
    assert (await client.threads.get_state(one))["next"] == ["gather"]


async def test_a_run_that_never_returns_is_ended_and_says_so(founded) -> None:
    house = founded("")
    file = house.folder / "agentflow.yaml"
    file.write_text(file.read_text().replace("server: {port: 0}", "server: {port: 0, turn_seconds: 3s}"))
    house.start("--graphs", str(GRAPHS)).close()
    async with get_client(url=house.address) as client:
        t = await thread(client)
        events = await collected(client.runs.stream(t, G, input=say("endlessly"), stream_mode="updates"))
        found = await client.threads.get(t)
        (run,) = await client.runs.list(t)
    error = {"error": "EngineTimeout", "message": "The turn took longer than server.turn_seconds = 3."}
    assert (events[-1].event, events[-1].data) == ("error", error)
    assert (found["status"], found["error"], told(found["values"])) == ("error", error, ["endlessly"])
    assert run["status"] == "timeout"


async def test_an_interrupt_waits_for_its_answer(client) -> None:
    one = await thread(client)
    values = await client.runs.wait(one, G, input=say("approve"))
    assert values["__interrupt__"][0]["value"] == {"question": "may I?"}
    assert (await client.threads.get(one))["status"] == "interrupted"
    done = await client.runs.wait(one, G, command={"resume": "yes"})
    assert done["notes"] == ["a person said yes"]
    assert (await client.threads.get(one))["status"] == "idle"


async def test_a_fork_from_history_goes_its_own_way(client) -> None:
    one = await thread(client)
    await client.runs.wait(one, G, input=say("hi"))
    history = await client.threads.get_history(one, limit=20)
    middle = next(state for state in history if state["next"] == ["speak"])
    assert history[0]["parent_checkpoint"] == history[1]["checkpoint"]
    forked = await client.threads.update_state(
        one, {"notes": ["forked"]}, checkpoint=middle["checkpoint"], as_node="gather"
    )
    values = await client.runs.wait(one, G, input=None, checkpoint=forked["checkpoint"])
    assert told(values, "ai") == ["heard: hi ['forked']"]


async def test_a_copy_has_the_history_and_a_life_of_its_own(client) -> None:
    one = await thread(client)
    await client.runs.wait(one, G, input=say("hi"))
    copy = (await client.threads.copy(one))["thread_id"]
    assert told(await client.runs.wait(copy, G, input=say("there"))) == ["hi", "there"]
    assert told((await client.threads.get_state(one))["values"]) == ["hi"]


async def test_only_the_last_state_is_kept_where_it_was_asked_for(client) -> None:
    one = await thread(client)
    await client.runs.wait(one, G, input=say("hi"))
    await client.threads.prune([one], strategy="keep_latest")
    assert len(await client.threads.get_history(one, limit=20)) == 1
    assert told(await client.runs.wait(one, G, input=say("there"))) == ["hi", "there"]


async def test_sixteen_runs_at_once_on_one_thread_are_sixteen_turns(client) -> None:
    one = await thread(client)
    runs = await asyncio.gather(*[client.runs.create(one, G, input=say(f"m{k}")) for k in range(16)])
    await asyncio.gather(*[client.runs.join(one, run["run_id"]) for run in runs])
    values = (await client.threads.get_state(one))["values"]
    order = [
        run["kwargs"]["input"]["messages"][0]["content"] for run in await client.runs.list(one, limit=20)
    ]
    assert told(values) == order[::-1]
    assert len(values["messages"]) == 32


async def test_reject_refuses_while_a_run_is_open(client) -> None:
    one = await thread(client)
    first = await client.runs.create(one, G, input=say("endlessly"))
    with pytest.raises(ConflictError):
        await client.runs.create(one, G, input=say("hi"), multitask_strategy="reject")
    await client.runs.cancel(one, first["run_id"])


@pytest.mark.parametrize(("strategy", "kept"), [("interrupt", ["endlessly", "hi"]), ("rollback", ["hi"])])
async def test_a_newer_run_stops_the_older_one(client, strategy: str, kept: list[str]) -> None:
    one = await thread(client)
    first = await client.runs.create(one, G, input=say("endlessly"))
    await napping(client, one)
    second = await client.runs.create(one, G, input=say("hi"), multitask_strategy=strategy)
    assert told(await client.runs.join(one, second["run_id"])) == kept
    if strategy == "rollback":
        with pytest.raises(NotFoundError):
            await client.runs.get(one, first["run_id"])


async def test_a_cancelled_run_is_interrupted_and_can_be_taken_back(client) -> None:
    one = await thread(client)
    first = await client.runs.create(one, G, input=say("endlessly"))
    await napping(client, one)
    await client.runs.cancel(one, first["run_id"], wait=True)
    assert (await client.runs.get(one, first["run_id"]))["status"] == "interrupted"
    again = await client.runs.create(one, G, input=say("endlessly too"))
    await until(client, one, again["run_id"], "running")
    await client.runs.cancel(one, again["run_id"], wait=True, action="rollback")
    assert told((await client.threads.get_state(one))["values"]) == ["endlessly"]


async def test_a_stream_that_was_left_is_rejoined_without_loss(client) -> None:
    one, run_id, seen = await thread(client), "", []
    async for event in client.runs.stream(
        one, G, input=say("slowly"), stream_mode="updates", stream_resumable=True, on_disconnect="continue"
    ):
        run_id = event.data["run_id"] if event.event == "metadata" else run_id
        seen.append(event)
        if event.event == "updates":
            break
    seen += await collected(client.runs.join_stream(one, run_id, last_event_id=seen[-1].id))
    assert [next(iter(event.data)) for event in seen if event.event == "updates"] == STEPS


async def test_a_finished_stream_is_told_again_from_the_beginning(client) -> None:
    one = await thread(client)
    run = await client.runs.create(one, G, input=say("hi"), stream_mode="updates", stream_resumable=True)
    await client.runs.join(one, run["run_id"])
    events = await collected(client.runs.join_stream(one, run["run_id"], last_event_id="-1"))
    assert [next(iter(event.data)) for event in events if event.event == "updates"] == STEPS


async def test_who_hangs_up_cancels_the_run_where_he_said_so(client) -> None:
    one, run_id = await thread(client), ""
    async for event in client.runs.stream(one, G, input=say("endlessly"), on_disconnect="cancel"):
        run_id = event.data["run_id"] if event.event == "metadata" else run_id
        if event.event == "values":
            break
    await until(client, one, run_id, "interrupted")


async def test_a_run_without_a_thread_leaves_nothing(client, http) -> None:
    answer = await http.post("/runs/wait", json={"assistant_id": G, "input": say("hi")})
    path = answer.headers["content-location"]
    assert (await http.get(path)).status_code == 404
    assert (await http.get(path.split("/runs/")[0])).status_code == 404


async def test_durability_exit_writes_one_checkpoint(client) -> None:
    one = await thread(client)
    await client.runs.wait(one, G, input=say("hi"), durability="exit")
    assert len(await client.threads.get_history(one, limit=20)) == 1


async def test_a_run_starts_after_its_seconds_and_others_do_not_wait_for_it(client) -> None:
    one = await thread(client)
    later = await client.runs.create(one, G, input=say("later"), after_seconds=1)
    assert told(await client.runs.wait(one, G, input=say("now"))) == ["now"]
    assert told(await client.runs.join(one, later["run_id"])) == ["now", "later"]


async def test_a_webhook_hears_of_the_end(client) -> None:
    heard: asyncio.Future[dict] = asyncio.get_running_loop().create_future()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        size = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        heard.set_result(json.loads(await reader.readexactly(size)))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(hear, "127.0.0.1", 0)
    async with server, asyncio.timeout(120):
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
        await client.runs.wait(await thread(client), G, input=say("hi"), webhook=address)
        body = await heard
    assert (body["status"], told(body["values"])) == ("success", ["hi"])


async def test_a_webhook_to_a_private_address_is_refused_before_anything_starts(client) -> None:
    with pytest.raises(UnprocessableEntityError) as refused:
        await client.runs.create(await thread(client), G, input=say("hi"), webhook="http://169.254.169.254/")
    assert "blocked" in refused.value.response.text


async def test_the_store_keeps_what_is_put_under_its_names(client) -> None:
    names = ["notes", uuid4().hex]
    await client.store.put_item(names, key="a", value={"x": 1})
    await client.store.put_item(names, key="b", value={"x": 2})
    found = await client.store.search_items(names, filter={"x": 2})
    assert [(one["namespace"], one["key"]) for one in found["items"]] == [(names, "b")]
    assert names in (await client.store.list_namespaces(prefix=["notes"], limit=1000))["namespaces"]
    await client.store.delete_item(names, key="a")
    assert await client.store.get_item(names, key="a") is None


async def test_a_cron_is_kept_with_its_next_time(client) -> None:
    made = await client.crons.create(G, schedule="0 0 1 1 *", input=say("happy new year"))
    assert made["next_run_date"].endswith("-01-01T00:00:00+00:00")
    assert made["cron_id"] in [one["cron_id"] for one in await client.crons.search(limit=100)]
    await client.crons.delete(made["cron_id"])


async def test_our_own_graph_takes_messages_and_shows_them(client) -> None:
    one = await thread(client)
    message = {"type": "human", "content": "Write python code", "id": "mine"}
    events = await collected(
        client.runs.stream(
            one, "agent", input={"messages": [message]}, stream_mode=["values", "messages-tuple"]
        )
    )
    streamed = [event.data[0] for event in events if event.event == "messages"]
    final = [event.data for event in events if event.event == "values"][-1]["messages"]
    assert [(each["type"], each["id"]) for each in final] == [("human", "mine"), ("ai", streamed[0]["id"])]
    assert "".join(each["content"] for each in streamed) == final[1]["content"]
    assert told((await client.threads.get_state(one))["values"]) == ["Write python code"]


async def test_turns_of_two_doors_are_one_conversation(client, http) -> None:
    one = await thread(client)
    await client.runs.wait(one, "agent", input=say("Write python code"))
    await http.post("/invoke", json={"input": "What is justice?", "thread_id": one})
    state = await client.threads.get_state(one)
    assert told(state["values"]) == ["Write python code", "What is justice?"]


async def test_studio_may_ask_before_it_asks(http) -> None:
    asks = {"Origin": STUDIO, "Access-Control-Request-Method": "POST"}
    wanted = {**asks, "Access-Control-Request-Private-Network": "true"}
    answer = await http.options("/assistants/search", headers=wanted)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-private-network"] == "true"
    told_headers = (await http.post("/assistants/search", json={}, headers={"Origin": STUDIO})).headers
    assert "content-location" in told_headers["access-control-expose-headers"]


async def test_studios_own_sequence_is_answered_from_its_page(client, http) -> None:
    page = {"origin": STUDIO, "content-type": "text/plain;charset=UTF-8"}
    thread_id = await thread(client)
    await client.runs.wait(thread_id, G, input=say("hi"))

    async def asked(method: str, path: str, **body) -> httpx.Response:
        sent = {"content": json.dumps(body)} if method == "POST" else {}
        answer = await http.request(method, path, headers=page, **sent)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, STUDIO), path
        return answer

    major, minor, _ = (await asked("GET", "/info")).json()["version"].split(".")
    assert (int(major), int(minor)) >= (0, 5)
    found = (await asked("POST", "/assistants/search", metadata={"created_by": "system"}, limit=100)).json()
    ident = next(one["assistant_id"] for one in found if one["graph_id"] == G)
    for part in ("graph?xray=true", "schemas", "subgraphs"):
        await asked("GET", f"/assistants/{ident}/{part}")
    shown = (await asked("POST", "/threads/search", metadata={"graph_id": G}, limit=10)).json()
    assert thread_id in [one["thread_id"] for one in shown]
    history = (await asked("POST", f"/threads/{thread_id}/history", limit=1000)).json()
    place = history[0]["checkpoint"]
    now = (await asked("GET", f"/threads/{thread_id}/state")).json()
    then = (await asked("GET", f"/threads/{thread_id}/state/{place['checkpoint_id']}?subgraphs=true")).json()
    also = (await asked("POST", f"/threads/{thread_id}/state/checkpoint", checkpoint=place)).json()
    assert now["values"] == then["values"] == also["values"]
    streamed = await asked(
        "POST",
        f"/threads/{thread_id}/runs/stream",
        assistant_id=ident,
        input=say("and"),
        stream_mode=["debug"],
    )
    assert "event: debug" in streamed.text


async def test_a_body_of_plain_text_is_read_but_not_from_any_page(http) -> None:
    plain = {"content-type": "text/plain;charset=UTF-8"}
    assert (await http.post("/threads", content="{}", headers=plain)).status_code == 200
    foreign = {**plain, "Origin": "https://evil.example"}
    assert (await http.post("/threads", content="{}", headers=foreign)).status_code == 403


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("GET", "/threads/not-an-id", None, 404),
        ("GET", "/threads/00000000-0000-7000-8000-00000000dead", None, 404),
        ("POST", "/threads", "{", 422),
        ("POST", "/threads", '{"thread_id": "x"}', 422),
        ("POST", "/threads", '{"metadata": {"a": "\\u0000"}}', 422),
        ("POST", "/runs/wait", '{"assistant_id": "nobody"}', 422),
        ("POST", "/threads/search", '{"limit": 5000}', 422),
        (
            "POST",
            "/threads/00000000-0000-7000-8000-00000000dead/runs/wait",
            '{"assistant_id": "five_steps"}',
            404,
        ),
        ("POST", "/runs/crons", '{"assistant_id": "five_steps", "schedule": "often"}', 422),
        ("POST", "/runs/wait", '{"assistant_id": "agent", "input": {"messages": []}}', 422),
        ("POST", "/runs/wait", '{"assistant_id": "agent", "config": {"configurable": "x"}}', 422),
        ("POST", "/runs/wait", '{"assistant_id": "agent", "checkpoint": {"checkpoint_id": 1}}', 422),
        ("GET", "/threads/%00", None, 422),
    ],
)
async def test_bad_input_is_refused_in_one_sentence(http, method, path, body, code) -> None:
    answer = await http.request(method, path, content=body)
    assert answer.status_code == code
    assert list(answer.json()) == ["detail"]
    assert isinstance(answer.json()["detail"], str)


@pytest.mark.parametrize(
    ("path", "method", "params"),
    [
        ("/mcp", "tools/call", {"name": "ask", "arguments": {"question": 5, "thread_id": 7}}),
        ("/mcp", "tools/call", {"name": {"a": 1}, "arguments": []}),
        ("/mcp", "tools/call", {"name": "search_memory", "arguments": {"query": 5, "collection": {"a": 1}}}),
        ("/a2a/agent", "message/send", {"message": {"contextId": 5, "parts": []}}),
        ("/a2a/agent", "message/send", {"message": {"parts": 5}}),
        ("/a2a/agent", "tasks/get", {"id": {"a": 1}}),
    ],
)
async def test_what_other_agents_send_wrongly_is_told_in_their_protocol(http, path, method, params) -> None:
    answer = await http.post(path, json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
    assert (answer.status_code, answer.json()["id"]) == (200, 1)
    assert answer.json()["error"]["message"]


async def test_a_collection_that_is_no_text_is_no_collection(http) -> None:
    asked = {"name": "search_memory", "arguments": {"query": "x", "collection": ["a"], "limit": "many"}}
    answer = await http.post("/mcp", json={"id": 1, "method": "tools/call", "params": asked})
    assert answer.json()["result"]["isError"] is False


async def test_newer_clients_start_runs_and_answer_interrupts(client) -> None:
    async with client.threads.stream(assistant_id=G) as stream:
        await stream.run.start(input=say("approve"))
        async with asyncio.timeout(120):
            while not stream.interrupted:  # noqa: ASYNC110 - the client offers no event
                await asyncio.sleep(0.05)
        await stream.run.respond("yes")
        assert "a person said yes" in json.dumps(await stream.output)


async def test_newer_clients_hear_over_a_websocket(client) -> None:
    async with client.threads.stream(assistant_id=G, transport="websocket") as stream:
        await stream.run.start(input=say("hi"))
        assert "heard: hi" in json.dumps(await stream.output)


async def test_one_socket_carries_commands_and_several_subscriptions(served) -> None:
    address = f"{served}/threads/{uuid4()}/stream/events".replace("http", "ws", 1)
    async with connect(address) as socket:

        async def sent(method: str, **params) -> dict:
            await socket.send(json.dumps({"id": 7, "method": method, "params": params}))
            while True:
                found = json.loads(await socket.recv())
                if found.get("id") == 7:
                    return found

        await socket.send("no json")
        refused = json.loads(await socket.recv())
        assert (refused["type"], refused["id"], refused["error"]) == ("error", None, "invalid_argument")
        names = [
            (await sent("subscription.subscribe", channels=[one]))["result"]["subscription_id"]
            for one in ("values", "lifecycle")
        ]
        assert (await sent("subscription.unsubscribe", subscription_id=names[0]))["result"] == {}
        gone = await sent("subscription.unsubscribe", subscription_id=names[0])
        assert gone["error"] == "no_such_subscription"
        started = await sent("run.start", assistant_id=G, input=say("hi"))
        heard = [json.loads(await socket.recv()) for _ in range(2)]
        assert [one["params"]["data"]["event"] for one in heard] == ["running", "completed"]
        assert {one["event_id"].split(":")[1] for one in heard} == {started["result"]["run_id"]}
        assert told((await sent("state.get", namespace=[]))["result"]["values"]) == ["hi"]
        assert (await sent("flow.setCapacity"))["error"] == "unknown_command"
        assert (await sent("input.inject"))["error"] == "invalid_argument"


async def test_a_newer_client_forks_from_a_checkpoint_and_answers_several_interrupts(client, http) -> None:
    thread_id = await thread(client)
    await client.runs.wait(thread_id, G, input=say("first"))
    old = (await client.threads.get_state(thread_id))["checkpoint"]["checkpoint_id"]
    await client.runs.wait(thread_id, G, input=say("second"))

    async def sent(method: str, **params) -> dict:
        body = {"id": 1, "method": method, "params": params}
        return (await http.post(f"/threads/{thread_id}/commands", json=body)).json()

    config = {"configurable": {"checkpoint_id": old}}
    forked = await sent("run.start", assistant_id=G, input=say("approve"), config=config)
    await client.runs.join(thread_id, forked["result"]["run_id"])
    state = await client.threads.get_state(thread_id)
    assert told(state["values"]) == ["first", "approve"]
    waits = {"namespace": [], "interrupt_id": state["interrupts"][0]["id"], "response": "yes"}
    assert (await sent("input.respond", responses=[{**waits, "interrupt_id": "no"}]))[
        "error"
    ] == "no_such_interrupt"
    resumed = await sent("input.respond", responses=[waits])
    await client.runs.join(thread_id, resumed["result"]["run_id"])
    assert (await client.threads.get_state(thread_id))["next"] == []


async def test_a_newer_client_lists_forks_injects_and_sees_the_agents(client, http) -> None:
    thread_id = await thread(client)
    await client.runs.wait(thread_id, G, input=say("first"))

    async def sent(method: str, **params) -> dict:
        body = {"id": 1, "method": method, "params": params}
        return (await http.post(f"/threads/{thread_id}/commands", json=body)).json()

    places = (await sent("state.listCheckpoints", limit=7))["result"]["checkpoints"]
    names = [one.get("node_name") for one in places]
    assert names == ["file_away", "speak", "gather", "cast", "sort", "__start__", None]
    assert [one["step"] for one in places] == [5, 4, 3, 2, 1, 0, -1]
    older = await sent("state.listCheckpoints", before=places[4]["id"])
    assert [one["id"] for one in older["result"]["checkpoints"]] == [places[5]["id"], places[6]["id"]]
    forked = await sent("state.fork", checkpoint_id=places[5]["id"], input=say("second"))
    assert forked["result"]["thread_id"] == thread_id
    await client.runs.join(thread_id, forked["result"]["run_id"])
    injected = await sent("input.inject", namespace=[], message={"role": "user", "content": "third"})
    values = await client.runs.join(thread_id, injected["result"]["run_id"])
    assert told(values) == ["first", "second", "third"]
    root = {"namespace": [], "status": "completed", "graph_name": G, "children": []}
    assert (await sent("agent.getTree"))["result"] == {"tree": root}
    assert (await sent("agent.getTree", run_id=str(uuid4())))["error"] == "no_such_run"
    assert (await sent("state.fork", checkpoint_id=str(uuid4())))["error"] == "no_such_checkpoint"
    spoken = {"namespace": ["cast:1"], "message": {"role": "user", "content": "psst"}}
    assert (await sent("input.inject", **spoken))["error"] == "no_such_namespace"


async def test_a_checkpoint_that_is_removed_is_not_begun_from_with_nothing(client) -> None:
    thread_id = await thread(client)
    await client.runs.wait(thread_id, G, input=say("first"))
    places = [one["checkpoint_id"] for one in await client.threads.get_history(thread_id, limit=2)]
    await client.threads.prune([thread_id], strategy="keep_latest")
    with pytest.raises(UnprocessableEntityError, match="no longer"):
        await client.runs.create(thread_id, G, input=say("second"), checkpoint_id=places[1])
    values = await client.runs.wait(thread_id, G, input=say("second"), checkpoint_id=places[0])
    assert told(values) == ["first", "second"]


async def test_clients_of_before_say_in_camel_case_what_becomes_of_a_run_under_way(client, http) -> None:
    thread_id = await thread(client)
    first = await client.runs.create(thread_id, G, input=say("endlessly"))
    params = {"assistant_id": G, "input": say("next"), "multitaskStrategy": "interrupt"}
    body = {"id": 1, "method": "run.start", "params": params}
    begun = (await http.post(f"/threads/{thread_id}/commands", json=body)).json()
    await client.runs.join(thread_id, begun["result"]["run_id"])
    assert (await client.runs.get(thread_id, first["run_id"]))["status"] == "interrupted"


async def test_a_forks_place_in_our_own_graph_is_told_while_it_answers(client, http) -> None:
    thread_id = str(uuid4())
    params = {"assistant_id": "agent", "input": say("What is justice?")}
    body = {"id": 1, "method": "run.start", "params": params}
    begun = (await http.post(f"/threads/{thread_id}/commands", json=body)).json()
    run_id = begun["result"]["run_id"]
    await client.runs.join(thread_id, run_id)
    heard, channels = [], {"channels": ["checkpoints", "lifecycle"]}
    async with http.stream("POST", f"/threads/{thread_id}/stream/events", json=channels) as stream:
        async for line in stream.aiter_lines():
            heard += [json.loads(line[6:])["params"]["data"]] if line.startswith("data: ") else []
            if heard and heard[-1].get("event") == "completed":
                break
    answer = (await client.threads.get_state(thread_id))["checkpoint"]["checkpoint_id"]
    places = [(one["id"], one["parent_id"]) for one in heard if "id" in one]
    assert places == [(run_id, thread_id), (answer, run_id)]


async def test_a_states_metadata_may_be_merged_and_its_history_narrowed(client, http) -> None:
    thread_id = await thread(client)
    assert (await http.patch(f"/threads/{thread_id}/state", json={"metadata": {"a": 1}})).status_code == 200
    assert (await client.threads.get(thread_id))["metadata"]["a"] == 1
    await client.runs.wait(thread_id, G, input=say("first"))
    wanted = {"limit": 1, "select": ["checkpoint_id", "values.topic"]}
    (one,) = (await http.post(f"/threads/{thread_id}/history", json=wanted)).json()
    assert (sorted(one), one["values"]) == (["checkpoint_id", "values"], {"topic": "talk"})


async def test_mcp_lists_graphs_as_tools_and_calls_them(http) -> None:
    async def call(method: str, params: dict) -> dict:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        return (await http.post("/mcp", json=body)).json()["result"]

    names = [one["name"] for one in (await call("tools/list", {}))["tools"]]
    assert names == ["agent", "five_steps", "made", "ask", "search_memory"]
    asked = await call("tools/call", {"name": "ask", "arguments": {"question": "What is justice?"}})
    assert asked["content"][0]["text"].startswith("[philosopher] You said: What is justice?")
    assert (await http.get("/mcp")).status_code == 405


async def test_a2a_answers_a_message_as_a_finished_task(http) -> None:
    card = (await http.get("/.well-known/agent-card.json", params={"assistant_id": G})).json()
    part = {"kind": "text", "text": "hi"}
    message = {"role": "user", "messageId": "1", "parts": [part]}
    body = {"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": message}}
    task = (await http.post(card["url"], json=body)).json()["result"]
    assert task["status"]["state"] == "completed"
    assert task["artifacts"][0]["parts"] == [{"kind": "text", "text": "heard: hi ['one']"}]


async def test_the_same_key_is_the_same_run_and_another_body_is_refused(client, http) -> None:
    one, key = await thread(client), {"Idempotency-Key": uuid4().hex}
    body = {"assistant_id": G, "input": say("hi")}
    begun = [(await http.post(f"/threads/{one}/runs", json=body, headers=key)).json() for _ in range(2)]
    assert begun[0]["run_id"] == begun[1]["run_id"]
    waited = await http.post(f"/threads/{one}/runs/wait", json=body, headers=key)
    await client.runs.wait(one, G, input=say("later"))
    again = await http.post(f"/threads/{one}/runs/wait", json=body, headers=key)
    assert (told(waited.json()), told(again.json())) == (["hi"], ["hi"])
    other = await http.post(f"/threads/{one}/runs", json={**body, "input": say("ho")}, headers=key)
    assert (other.status_code, list(other.json())) == (409, ["detail"])
    assert told((await client.threads.get_state(one))["values"]) == ["hi", "later"]


async def test_a_repeated_request_and_an_old_state_show_the_conversation_as_it_was(client, http) -> None:
    one, key = await thread(client), {"Idempotency-Key": uuid4().hex}
    body = {"assistant_id": "agent", "input": say("Write python code")}
    await http.post(f"/threads/{one}/runs/wait", json=body, headers=key)
    before = await client.threads.get_state(one)
    await client.runs.wait(one, "agent", input=say("What is justice?"))
    again = await http.post(f"/threads/{one}/runs/wait", json=body, headers=key)
    assert told(again.json()) == ["Write python code"]
    then = await client.threads.get_state(one, checkpoint=before["checkpoint"])
    assert told(then["values"]) == ["Write python code"]


async def test_other_agents_and_tools_repeat_with_a_key_too(client, http) -> None:
    async def sent(path: str, method: str, params: dict, key: str) -> dict:
        body = {"jsonrpc": "2.0", "id": uuid4().hex, "method": method, "params": params}
        return (await http.post(path, json=body, headers={"Idempotency-Key": key})).json()

    def message(text: str) -> dict:
        return {
            "message": {"role": "user", "parts": [{"kind": "text", "text": text}], "messageId": uuid4().hex}
        }

    def tool(text: str) -> dict:
        return {"name": G, "arguments": say(text)}

    agent = (await client.assistants.search(graph_id=G))[0]["assistant_id"]
    for path, method, params in ((f"/a2a/{agent}", "message/send", message), ("/mcp", "tools/call", tool)):
        key = uuid4().hex
        first, again, other = [await sent(path, method, params(text), key) for text in ("hi", "hi", "ho")]
        assert (
            json.dumps(first["result"]).count("heard: hi")
            == json.dumps(again["result"]).count("heard: hi")
            > 0
        )
        assert other["error"]["data"] == {"error": "Conflict", "status": 409}
        if method == "message/send":
            assert first["result"]["id"] == again["result"]["id"]
            assert len(await client.runs.list(first["result"]["contextId"])) == 1


async def test_a_command_with_a_key_is_obeyed_once(client, http) -> None:
    one = await thread(client)

    async def sent(method: str, key: str, **params) -> dict:
        body = {"id": 1, "method": method, "params": params}
        path = f"/threads/{one}/commands"
        return (await http.post(path, json=body, headers={"Idempotency-Key": key})).json()

    start, answer = uuid4().hex, uuid4().hex
    begun = [await sent("run.start", start, assistant_id=G, input=say("approve")) for _ in range(2)]
    assert begun[0]["result"] == begun[1]["result"]
    other = await sent("run.start", start, assistant_id=G, input=say("ho"))
    assert (other["type"], other["error"]) == ("error", "conflict")
    await client.runs.join(one, begun[0]["result"]["run_id"])
    found = (await client.threads.get(one))["interrupts"]
    (waits,) = [each["id"] for several in found.values() for each in several]
    answered = [await sent("input.respond", answer, interrupt_id=waits, response="yes") for _ in range(2)]
    assert answered[0]["result"] == answered[1]["result"]
    await client.runs.join(one, answered[0]["result"]["run_id"])
    again = await sent("input.respond", answer, interrupt_id=waits, response="yes")
    assert again["result"] == answered[0]["result"]
    assert len(await client.runs.list(one)) == 2


async def test_retries_at_once_are_one_run(client, http) -> None:
    one, key = await thread(client), {"Idempotency-Key": uuid4().hex}
    body = {"assistant_id": G, "input": say("hi")}
    calls = [http.post(f"/threads/{one}/runs/wait", json=body, headers=key) for _ in range(6)]
    assert [told(each.json()) for each in await asyncio.gather(*calls)] == [["hi"]] * 6
    assert len(await client.runs.list(one)) == 1


async def test_a_run_without_a_thread_is_kept_for_its_key(http) -> None:
    key, body = {"Idempotency-Key": uuid4().hex}, {"assistant_id": "agent", "input": say("What is justice?")}
    first, again = [(await http.post("/runs/wait", json=body, headers=key)) for _ in range(2)]
    assert first.headers["content-location"] == again.headers["content-location"]
    assert first.json()["messages"] == again.json()["messages"]
    assert first.json()["messages"][-1]["response_metadata"]["role"] == "philosopher"


async def test_a_repeated_stream_tells_what_the_run_came_to(http) -> None:
    key, body = {"Idempotency-Key": uuid4().hex}, {"assistant_id": G, "input": say("hi")}
    first, again = [(await http.post("/runs/stream", json=body, headers=key)) for _ in range(2)]
    assert first.headers["content-location"] == again.headers["content-location"]
    assert again.text.count("event: ") == 2
    last = [json.loads(each.text.strip().splitlines()[-1][len("data: ") :]) for each in (first, again)]
    assert last[0] == last[1]


async def test_a_repeated_request_hears_again_why_its_run_failed(http) -> None:
    key, body = {"Idempotency-Key": uuid4().hex}, {"assistant_id": G, "input": say("break")}
    first, again = [(await http.post("/runs/wait", json=body, headers=key)) for _ in range(2)]
    assert (
        first.json() == again.json() == {"__error__": {"error": "ValueError", "message": "it broke as asked"}}
    )
