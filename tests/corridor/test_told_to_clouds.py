"""`pii_redaction` on what goes out: a cloud is told nothing personal, an engine of ours is."""

from __future__ import annotations

import pytest

from forebay.corridor import Corridor
from forebay.policy.outgoing import LENGTHY
from forebay.testing import FakeEngine, MemoryLedger, house, request
from forebay.values import Text, Token, Verdict

MAIL = "ada@example.com"
CLOUD, OURS = {"openai": {"model": "m"}}, {"triton": {}}
EDGE = {"openai": {"model": "m", "base_url": "http://127.0.0.1:9/v1"}, "residency": "device"}


async def asked(first, *, verify="pii_redaction", text=f"Write to {MAIL}.", **route):
    ledger = MemoryLedger()
    engines = {"first": FakeEngine(("Dear Ada",)), "cloud": FakeEngine(("Dear Ada",))}
    document = {
        "models": {"first": first, "cloud": CLOUD},
        "default": {"model": "first", "verify": verify, **route},
    }
    made = house(engines, document, ledger=ledger)
    events = [e async for e in Corridor(made).run(request(prompt=Text(text)))]
    return events, engines, ledger.records[0]


@pytest.mark.parametrize(
    ("why", "first", "verify", "told"),
    [
        ("a cloud is not told", CLOUD, "pii_redaction", "Write to [EMAIL]."),
        ("our own engine is", OURS, "pii_redaction", f"Write to {MAIL}."),
        ("so is one on the client's own device", EDGE, "pii_redaction", f"Write to {MAIL}."),
        ("a class that does not ask for it tells all", CLOUD, "refusal", f"Write to {MAIL}."),
    ],
)
async def test_what_a_target_is_told(why, first, verify, told):
    _, engines, _ = await asked(first, verify=verify)
    (call,) = engines["first"].calls
    assert call.request.prompt.text == told, why


async def test_the_verdict_comes_before_the_answer_and_stands_in_the_record():
    events, _, record = await asked(CLOUD)
    kinds = [type(e) for e in events]
    assert kinds.index(Verdict) < kinds.index(Token)
    assert [(v.outcome, v.reason) for v in record.attempts[0].verdicts] == [
        ("redacted", "in what the target was told: 1 EMAIL"),
        ("passed", ""),
    ]
    assert MAIL not in str(record)


async def test_a_climb_from_our_engine_to_a_cloud_redacts_on_the_way():
    engines = {"first": FakeEngine(("no json",)), "cloud": FakeEngine(('{"a": 1}',))}
    document = {
        "models": {"first": OURS, "cloud": CLOUD},
        "default": {
            "model": "first",
            "fallback": "cloud",
            "verify": ["pii_redaction", "json_schema"],
            "schema": {"type": "object", "required": ["a"]},
            "stream": "final",
            "repair": 1,
        },
    }
    made = house(engines, document)
    async for _ in Corridor(made).run(request(prompt=Text(f"I am {MAIL}"))):
        pass
    assert MAIL in engines["first"].calls[0].request.prompt.text
    assert "[EMAIL]" in engines["cloud"].calls[0].request.prompt.text


async def test_a_long_prompt_is_read_in_full():
    _, engines, _ = await asked(CLOUD, text="x" * LENGTHY + f" {MAIL}")
    assert engines["first"].calls[0].request.prompt.text.endswith("[EMAIL]")
