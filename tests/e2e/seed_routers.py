"""Routers under policies/seed.yaml with aimock for both providers, and the records they leave."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
import httpx
import orjson
from aimocks import heard
from conftest import RunningStack
from routers import LONGEST_S, Router, serving

from forebay.cli.up import CHECKOUT

SEED = (CHECKOUT / "policies" / "seed.yaml").read_text()
KEY = "sk-for-tests-0123456789"

ROUTES = """\
routes:
  - match: {task: "summarize", sensitivity: "low"}
    model: "open_model_self_hosted"
    constraints: {max_latency_ms: 800}
    verify: ["json_schema", "pii_redaction"]
    fallback: "provider_frontier_model"
  - match: {task: "customer_support", sensitivity: "medium"}
    model: "provider_mid_tier_model"
    tools: ["crm_lookup", "order_status"]
    verify: ["tool_call_schema", "policy_rules"]
    fallback: "provider_frontier_model"
  - match: {task: "legal", sensitivity: "high"}
    model: "provider_frontier_model"
    verify: ["citations_required", "policy_rules"]
    fallback: "human_review_queue"
"""
"""The design's three routes, byte for byte: users write them so, and they must load as they are."""

RECORDED_S = 5.0
"""Records are written in batches; one that is not there after so long is missing."""


def policy(port: int, *, repair: bool = False) -> str:
    """Return the seed policy with both providers at a port of this machine."""
    api = {
        "openai: {": f'openai: {{base_url: "http://127.0.0.1:{port}/v1", ',
        "anthropic: {": f'anthropic: {{base_url: "http://127.0.0.1:{port}", ',
    }
    text = SEED
    for said, told in api.items():
        assert text.count(said) == 1
        text = text.replace(said, told)
    return text.replace("    fallback:", "    repair: 1\n    fallback:") if repair else text


@dataclass(frozen=True, slots=True)
class Left:
    """What one request left in the records."""

    id: str
    route: str
    status: str
    door: str
    stream: bool
    steps: tuple[str, ...]
    attempts: tuple[dict[str, Any], ...]

    @classmethod
    def of(cls, body: dict[str, Any]) -> "Left":
        """Return a record with its attempts as `move:target:outcome`."""
        kept = {name: body[name] for name in ("id", "route", "status", "door", "stream")}
        attempts = tuple(body["attempts"])
        return cls(**kept, steps=tuple(map(step, attempts)), attempts=attempts)


def step(attempt: dict[str, Any]) -> str:
    """Return `move:target:outcome` of an attempt, and the verifiers that its answer failed."""
    said = f"{attempt['move']}:{attempt['target']}:{attempt['outcome']}"
    failed = [one["verifier"] for one in attempt["verdicts"] if one["outcome"] == "failed"]
    return f"{said} by {', '.join(failed)}" if failed else said


@dataclass
class Seeded:
    """A router under the seed policy; `asked` counts what it was asked and must have recorded."""

    router: Router
    home: Path
    provider: int
    http: httpx.Client
    asked: int = 0
    _read: int = field(default=0, init=False)

    def left(self) -> Left:
        """Return the record of the last request, which must be the only new one."""
        until_s = time.monotonic() + RECORDED_S
        while not (bodies := self._bodies(self._read)) and time.monotonic() < until_s:
            time.sleep(0.01)
        self._read += len(bodies)
        assert len(bodies) == 1, bodies
        return Left.of(bodies[0])

    def heard(self, words: str) -> list[str]:
        """Return what the provider has got of requests with these words, as JSON."""
        bodies = [json.dumps(one["body"]) for one in heard(self.provider, KEY)]
        return [body for body in bodies if words in body]

    def ticket(self, ticket: str) -> dict[str, Any]:
        """Return how a ticket stands, as the HTTP door tells it."""
        answer = self.http.get(f"/v1/tickets/{ticket}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def _bodies(self, after: int) -> list[dict[str, Any]]:
        connection = apsw.Connection(str(self.home / "records.db"), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            rows = connection.execute("SELECT body FROM records WHERE rowid > ?", (after,))
            return [orjson.loads(body) for (body,) in rows]
        finally:
            connection.close()

    def finished(self) -> None:
        """Assert, of a router that has stopped, that each request has exactly one record."""
        ids = [body["id"] for body in self._bodies(0)]
        assert len(ids) == len(set(ids)) == self.asked
        assert "WITHHELD" not in self.router.log.read_text()


@contextmanager
def seeded(
    home: Path, triton: RunningStack, provider: int, *, repair: bool = False
) -> Iterator[Seeded]:
    """Yield a router of one's own over a Triton that stands, with aimock as both providers."""
    settings = {
        "FOREBAY_TRITON_GRPC_PORT": str(triton.port("TRITON_GRPC")),
        "FOREBAY_TRITON_METRICS_PORT": str(triton.port("TRITON_METRICS")),
        "OPENAI_API_KEY": KEY,
        "ANTHROPIC_API_KEY": KEY,
    }
    with serving(home, policy(provider, repair=repair), **settings) as router:
        base = f"http://127.0.0.1:{router.ports['FOREBAY_HTTP_PORT']}"
        with httpx.Client(base_url=base, timeout=LONGEST_S) as http:
            made = Seeded(router, home, provider, http)
            yield made
    made.finished()
