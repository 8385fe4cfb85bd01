"""`forebay ask`: stream one answer, then say who gave it, how fast and why."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
import grpc
from google.protobuf import json_format

from forebay.cli.client import fail, request, request_options, stub
from forebay.v1 import router_pb2 as pb

_TOLD = ("failed", "referred", "flagged", "redacted")
"""Outcomes of verdicts that a person at a terminal wants to know."""


@click.command()
@request_options
def ask(text: str, *, as_json: bool, **options: Any) -> None:
    """Ask the router for an answer to TEXT; the answer streams to standard output."""
    made = request(text, options)
    try:
        if as_json:
            answer = stub(options).Complete(made)
            print(json.dumps(json_format.MessageToDict(answer, preserving_proto_field_name=True)))
        else:
            _stream(stub(options).Generate(made))
    except grpc.RpcError as error:
        fail(error, options, as_json=as_json)


def _stream(events: Any) -> None:
    decision = pb.Decision()
    for event in events:
        kind = event.WhichOneof("event")
        if kind == "decision":
            decision = event.decision
        elif kind == "token":
            print(event.token.text, end="", flush=True)
        elif kind == "status":
            print(f"[{event.status.what}]", file=sys.stderr)
        elif kind == "ticket":
            ticket = event.ticket.id
            print(f"A person will answer this: GET /v1/tickets/{ticket}", file=sys.stderr)
        elif kind == "verdict" and event.verdict.outcome in _TOLD:
            said = event.verdict
            print(f"\n[{said.verifier} {said.outcome}: {said.reason}]", file=sys.stderr)
        elif kind == "done":
            _close(decision, event.done)


def _close(decision: pb.Decision, done: pb.Done) -> None:
    for call in done.tool_calls:
        print(f"{call.name}({call.arguments_json})", end="")
    print(flush=True)
    ttft = f"{done.ttft_ms:.0f} ms" if done.HasField("ttft_ms") else "-"
    tpot = f"{done.tpot_ms:.1f} ms" if done.HasField("tpot_ms") else "-"
    print(
        f"class {decision.route} · target {decision.target} · TTFT {ttft} · TPOT {tpot} · "
        f"{done.prompt_tokens}+{done.completion_tokens} tokens · {done.finish}\n"
        f"why: {decision.why} ({decision.reason}, {decision.move}) · policy {decision.policy}",
        file=sys.stderr,
    )
