"""Targets behind anybody's OpenAI API, from the policy's file to the provider's socket.

Two tiers of one provider on one ladder, an address shaped like OpenRouter's, and a server on a
device: each is wired as `forebay serve` wires it.
"""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import pytest
from edges.provider import DONE, HEAD, STOP, Provider, error, listening, said, says, sse

from forebay.corridor import Corridor
from forebay.errors import EngineUnavailable, NotPermitted, Overloaded, SettingsError, Unmatched
from forebay.testing import FakeEngine, LoopClock, MemoryLedger, house, request
from forebay.values import Decided, Done, Failed, Labels, Token
from forebay.wiring import Settings, read_policy
from forebay.wiring.engines import Engines

SECRET = "sk-one-for-both"


def answers(*texts, usage=(3, 2)):
    counted = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    told = {"choices": [], "usage": counted}
    return (HEAD, sse(*map(says, texts), STOP, told, DONE))


@pytest.fixture
def key(tmp_path):
    place = tmp_path / "key"
    place.write_text(SECRET)
    return place


@asynccontextmanager
async def wired(tmp_path, written):
    """Yield the house that serves a policy, with a ledger that can be read."""
    path = tmp_path / "policy.yaml"
    path.write_text(written)
    policy, clock = read_policy(path), LoopClock()
    engines = Engines(Settings.of({"FOREBAY_POLICY": str(path)}), policy, clock)
    try:
        yield replace(
            house(),
            policy=policy,
            engines=engines.by_target,
            admission=engines.admission,
            clock=clock,
            ledger=MemoryLedger(),
        )
    finally:
        await engines.close()


async def walked(made, **asked):
    """Return the steps that a request took, the text that left, and how it ended."""
    asking = request(received_s=made.clock.now_s(), **asked)
    async with aclosing(Corridor(made).run(asking)) as run:
        events = [event async for event in run]
    steps = [(e.target, e.move) for e in events if isinstance(e, Decided)]
    return steps, "".join(e.text for e in events if isinstance(e, Token)), events[-1]


# ---- two tiers of one provider ----------------------------------------------------------------

TIERS = """
models:
  small:
    openai: {{model: tiny-5, base_url: "{url}/v1", key: "file:{key}"}}
    price: {{output_usd_per_mtok: 1000}}
  large:
    openai: {{model: grand-5, base_url: "{url}/v1", key: "file:{key}"}}
    price: {{output_usd_per_mtok: 10000}}
default:
  model: small
  fallback: large
  verify: [json_schema]
  schema: {{type: object, required: [city]}}
"""


@asynccontextmanager
async def tiers(tmp_path, key, small, large):
    provider = Provider(by_model={"tiny-5": small, "grand-5": large})
    async with (
        listening(provider) as url,
        wired(tmp_path, TIERS.format(url=url, key=key)) as made,
    ):
        yield made, provider


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_of_the_small_tier_that_fails_climbs_to_the_large(tmp_path, key, stream):
    good = answers('{"city"', ': "Bern"}')
    async with tiers(tmp_path, key, answers("Bern", ", I think"), good) as (made, provider):
        steps, text, last = await walked(made, text="Where?", stream=stream)
    assert isinstance(last, Done)
    assert steps == [("small", "first"), ("large", "escalate")]
    assert text == '{"city": "Bern"}'
    assert [body["model"] for body in provider.bodies] == ["tiny-5", "grand-5"]
    assert len({str(body["messages"]) for body in provider.bodies}) == 1
    assert [told["authorization"] for told in provider.headers] == [f"bearer {SECRET}"] * 2
    (record,) = made.ledger.records
    assert [(a.target, a.outcome) for a in record.attempts] == [
        ("small", "refused"),
        ("large", "answered"),
    ]
    assert [a.usd for a in record.attempts] == pytest.approx([0.002, 0.02])


async def test_an_answer_of_the_small_tier_that_passes_asks_nobody_else(tmp_path, key):
    async with tiers(tmp_path, key, answers('{"city": "Bern"}'), ()) as (made, provider):
        steps, _, last = await walked(made)
    assert isinstance(last, Done)
    assert steps == [("small", "first")]
    assert [body["model"] for body in provider.bodies] == ["tiny-5"]


async def test_a_small_tier_that_is_full_spills_to_the_large(tmp_path, key):
    full = (error("429 Full", said("rate_limit_exceeded"), "retry-after: 2"),)
    async with tiers(tmp_path, key, full, answers('{"city": "Bern"}')) as (made, provider):
        steps, _, last = await walked(made)
    assert isinstance(last, Done)
    assert steps == [("small", "first"), ("large", "spill")]
    assert [body["model"] for body in provider.bodies] == ["tiny-5", "grand-5"]


# ---- an address shaped like OpenRouter's ------------------------------------------------------

ROUTED = """
models:
  routed:
    openai:
      model: meta-llama/llama-3.3-70b-instruct:free
      base_url: "{url}/api/v1{slash}"
      key: "file:{key}"
    price: {{input_usd_per_mtok: 100, output_usd_per_mtok: 400}}
  next: {{openai: {{model: other, base_url: "{url}/v1"}}}}
default: {{model: routed, fallback: next}}
"""
BUSY = b": OPENROUTER PROCESSING\n\n"
COUNTED = {"prompt_tokens": 30, "completion_tokens": 2, "cost": 0.0, "is_byok": False}
BROKEN = {
    "error": {"code": 502, "message": "Provider returned error", "metadata": {}},
    "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
}


@asynccontextmanager
async def openrouter(tmp_path, key, *script, slash=""):
    provider = Provider(script, by_model={"other": answers("Else.")})
    async with (
        listening(provider) as url,
        wired(tmp_path, ROUTED.format(url=url, key=key, slash=slash)) as made,
    ):
        yield made, provider


@pytest.mark.parametrize("slash", ["", "/"])
async def test_an_address_with_a_path_of_its_own(tmp_path, key, slash):
    named = {"provider": "Someone", "model": "meta-llama/llama-3.3-70b-instruct"}
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": COUNTED}
    script = sse(BUSY, BUSY, says("Otters") | named, BUSY, says(" swim.") | named, end, DONE)
    async with openrouter(tmp_path, key, HEAD, script, slash=slash) as (made, provider):
        steps, text, last = await walked(made)
    assert steps == [("routed", "first")]
    assert text == "Otters swim."
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (30, 2)
    assert made.ledger.records[0].attempts[0].usd == pytest.approx(0.0038)
    assert provider.paths == ["/api/v1/chat/completions"]
    assert provider.headers[0]["authorization"] == f"bearer {SECRET}"
    assert provider.bodies[0]["model"] == "meta-llama/llama-3.3-70b-instruct:free"


@pytest.mark.parametrize(
    ("why", "script"),
    [
        ("nothing left", (error("402 Payment", said(402, "Insufficient credits")),)),
        ("nobody serves it", (error("404 Not Found", said(404, "No endpoints found")),)),
        ("its provider broke, told in the stream", (HEAD, sse(BUSY, BROKEN))),
    ],
)
async def test_what_fails_there_goes_to_the_next_rung(tmp_path, key, why, script):
    async with openrouter(tmp_path, key, *script) as (made, provider):
        steps, text, last = await walked(made)
    assert isinstance(last, Done), why
    assert steps == [("routed", "first"), ("next", "failover")]
    assert text == "Else."
    assert provider.paths == ["/api/v1/chat/completions", "/v1/chat/completions"]


# ---- a server on a device ---------------------------------------------------------------------

EDGE = """
models:
  laptop: {{openai: {{model: "qwen3:4b", base_url: "{url}/v1"}}, residency: device}}
  frontier: {{openai: {{model: grand-5, base_url: "{cloud}/v1"}}, residency: us}}
routes:
  - match: {{task: notes, sensitivity: low}}
    model: laptop
    residency: {residency}
  - match: {{task: chat}}
    model: laptop
    fallback: frontier
"""
NOBODY = "http://127.0.0.1:1"


def edge(**changed):
    return EDGE.format(**{"url": NOBODY, "cloud": NOBODY, "residency": "[device]", **changed})


async def test_a_server_without_a_key_is_called_without_one(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "ambient")
    laptop = Provider(answers("Noted", "."))
    async with listening(laptop) as url, wired(tmp_path, edge(url=url)) as made:
        steps, text, last = await walked(made, labels=Labels(task="notes"))
    assert isinstance(last, Done)
    assert (steps, text) == ([("laptop", "first")], "Noted.")
    assert laptop.bodies[0]["model"] == "qwen3:4b"
    assert "authorization" not in laptop.headers[0]


async def test_a_route_that_stays_on_the_premises_takes_no_device(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(edge(residency="[on_premises]"))
    told = r"policy\.yaml:7:12: laptop is in device, and the route stays in on_premises"
    with pytest.raises(SettingsError, match=told):
        read_policy(path)


@pytest.mark.parametrize(
    ("model", "labels", "error"),
    [
        ("auto", Labels(task="notes", sensitivity="medium"), Unmatched),
        ("notes", Labels(sensitivity="high"), NotPermitted),
        ("laptop", Labels(task="notes", sensitivity="high"), Unmatched),
    ],
)
async def test_what_is_sensitive_is_not_for_the_device(tmp_path, model, labels, error):
    async with wired(tmp_path, edge()) as made:
        _, _, last = await walked(made, model=model, labels=labels)
    assert isinstance(last, Failed)
    assert type(last.error) is error


async def test_a_device_that_sleeps_fails_over_only_where_the_route_lets_it(tmp_path):
    cloud = Provider(answers("Hello."))
    async with listening(cloud) as url, wired(tmp_path, edge(cloud=url)) as made:
        steps, text, _ = await walked(made, labels=Labels(task="chat"))
        assert (steps, text) == ([("laptop", "first"), ("frontier", "failover")], "Hello.")
        _, _, last = await walked(made, labels=Labels(task="notes"))
    assert isinstance(last, Failed)
    assert isinstance(last.error, EngineUnavailable)
    assert len(cloud.bodies) == 1


@pytest.mark.parametrize(
    ("spill", "residency", "ended"),
    [
        (None, "device", Overloaded),
        (None, "us", "beside"),
        ({"to": "beside"}, "device", "beside"),
    ],
)
async def test_a_full_engine_overflows_to_a_device_only_if_told_so(spill, residency, ended):
    models = {
        "local": {"triton": {}, "limits": {"max_inflight": 1}},
        "beside": {"openai": {"model": "m", "base_url": f"{NOBODY}/v1"}, "residency": residency},
    }
    default = {"model": "local", "fallback": "beside", "spill": spill}
    engines = {"local": FakeEngine(), "beside": FakeEngine()}
    document = {"models": models, "default": default}
    steps, _, last = await walked(house(engines, document, busy={"local": 1}))
    if ended is Overloaded:
        assert isinstance(last.error, Overloaded)
        assert engines["beside"].calls == []
    else:
        assert steps == [(ended, "spill")]
