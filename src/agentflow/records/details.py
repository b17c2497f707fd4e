"""A turn's result as it is stored: without the words that `message` and `memory` hold, and packed.

Most of a result is the same keys again and again, so it is deflated JSON behind one byte, the version of the text that
both sides know beforehand. Told again, it is the same JSON: the words come back with the columns of TOLD. A memory
that was forgotten since is left out; one that was edited since is told as the turn had it.
"""

import json
import zlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from agentflow.turn import Json

VERSION = 1
# Never changed: rows are read with it. A better one would be version 2, beside it.
KNOWN = (
    b'"tool_calls":[{"id":"call_","type":"function","function":{"name":"","arguments":"{\\"'
    b'"after":[{"role":"tool","tool_call_id":"call_","content":"'
    b'"intent":{"ranking":[],"in_scope":true,"skipped":true},"selection":{"asked_for":"","reason":"explicit","tier":"base",'
    b'"question":null},"in_scope":false,"fallback","pinned","sticky","ambiguous","gpu","ram","disk","cold"'
    b'"cited":{"document":"","document_id":,"heading":"","page":,"line":,"part":},"pinned":true,"cosine":null,'
    b'{"run_id":null,"thread_id":null,"output":null,"role":"","adapter":"@","tier":"gpu","reason":"classified","finish":"length","usage":{"prompt_tokens":'
    b',"completion_tokens":},"intent":{"router":"","looked_at":"alone","features":"hybrid:0.5","calibration":"fresh",'
    b'"parts":[{"role":"","mean":0.,"nearest":0.,"regression":-0.,"discriminant":-},{"role":"","mean":-0.'
    b'"nearest":[{"text":"","role":"","similarity":0.},{"text":"","role":"","similarity":0.'
    b'"ranking":[{"role":"","score":0.},{"role":"","score":0.0'
    b'"intent":"","intent":null,"confidence":0.9,"margin":0.,"margin_threshold":0.5,"scope_score":-0.,'
    b'"scope_threshold":-,"in_scope":true,"embed_ms":,"decide_ms":},"selection":{"role":"","adapter":null,"tier":"base",'
    b'"prior":{"role":"","kind":"tempered","factor":2.8284},"margin":0.9,"margin_threshold":0.5,"alternatives":['
    b'{"role":"","score":0.0},{"role":"","score":0.0}],"question":null,"reason":"classified"},"memory":"degraded","off"'
    b'"memory":"full","finish":"stop","memories":[{"score":0.,"why":{"bm25":,"related":0.,"cosine":0.,"fused":,'
    b'"question":-0.3,"question":0.0,"neighbours":0.,"session":,"matched":["","'
    b'"timings":{"accept":,"classify":,"select":0.,"recall":,"generate":}}'
)
WORDS = ("run_id", "thread_id", "output")
"""Of a result: what the run's row and its answer's message say."""
MEMORY_WORDS = ("id", "collection", "speaker", "said_at", "content")
"""Of a recalled memory: what its own row says."""

# Columns of a run r, for `told`.
TOLD = """
r.details, r.recalled,
(select a.content from message a where a.run_id = r.id and a.role = 3 and a.status = 1),
case when r.recalled is not null then (
  select jsonb_object_agg(m.id, jsonb_build_array(c.name, m.speaker,
           to_char(m.said_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS') || '+00:00',
           coalesce(former.content, m.content)))
  from collection c join memory m on m.collection_id = c.id and m.id = any(r.recalled)
  left join lateral (
    select h ->> 'content' as content from jsonb_array_elements(m.history) with ordinality x(h, place)
    where (h ->> 'until')::timestamptz >= date_trunc('second', r.ended_at) order by place limit 1) former on true
  where c.tenant = r.tenant) end
"""


def packed(result: Json) -> tuple[bytes, list[int] | None]:
    """What of a result is stored, and the ids of the memories that it names, if any."""
    memories = result.get("memories", [])
    kept = {key: None if key in WORDS else value for key, value in result.items()}
    if memories:
        kept["memories"] = [_without(one, MEMORY_WORDS) for one in memories]
    return _deflated(kept), [one["id"] for one in memories] or None


def unpacked(details: bytes | None) -> Json:
    """The stored part of a result; nothing for a turn that has none."""
    if details is None:
        return {}
    inflate = zlib.decompressobj(-zlib.MAX_WBITS, zdict=KNOWN)
    kept: Json = json.loads(inflate.decompress(details[1:]) + inflate.flush())
    return kept


def told(run_id: Any, thread_id: Any, columns: Sequence[Any]) -> Json | None:
    """The result again, from the columns of TOLD; None for a turn that has none."""
    details, recalled, output, memories = columns
    if details is None:
        return None
    kept = unpacked(details)
    if recalled:
        pairs = zip(recalled, kept["memories"], strict=True)
        rows = memories or {}
        kept["memories"] = [_memory(item, rows[str(item)], one) for item, one in pairs if str(item) in rows]
    words = zip(WORDS, (str(run_id), str(thread_id), output or ""), strict=True)
    return kept | {key: value for key, value in words if key in kept}


def offered(details: bytes | None) -> list[str]:
    """The roles of a question that the turn asked back."""
    return list((unpacked(details).get("selection") or {}).get("offered") or ())


def without(details: bytes, recalled: Sequence[int], gone: Collection[int]) -> tuple[bytes, list[int]]:
    """The same without some of its memories."""
    kept = unpacked(details)
    pairs = [(item, one) for item, one in zip(recalled, kept["memories"], strict=True) if item not in gone]
    kept["memories"] = [one for _, one in pairs]
    return _deflated(kept), [item for item, _ in pairs]


def replaced(details: bytes, words: str, by: str) -> bytes | None:
    """The same with a text in place of another; None where it is not in there."""
    kept = _text(unpacked(details))
    inside, new = (json.dumps(one, ensure_ascii=False) for one in (words, by))
    return _deflated(json.loads(kept.replace(inside, new))) if inside in kept else None


def emptied(details: bytes, words: str) -> bytes | None:
    """The same without memories and tool calls, where a text is in it, in any case; else None."""
    kept = unpacked(details)
    if words.lower() not in _text(kept).lower():
        return None
    return _deflated({**_without(kept, ("tool_calls", "after")), "memories": []})


def _memory(item: int, row: Sequence[str], one: Json) -> Json:
    collection, speaker, said_at, content = row
    words = {"id": item, "collection": collection, "speaker": speaker, "said_at": said_at}
    score = {"score": one["score"]} if "score" in one else {}
    return {**words, **score, "content": content, **_without(one, ("score",))}


def _without(one: Mapping[str, Any], keys: Sequence[str]) -> Json:
    return {key: value for key, value in one.items() if key not in keys}


def _deflated(kept: Json) -> bytes:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, zdict=KNOWN)
    return bytes([VERSION]) + deflate.compress(_text(kept).encode()) + deflate.flush()


def _text(kept: Json) -> str:
    return json.dumps(kept, ensure_ascii=False, separators=(",", ":"))
