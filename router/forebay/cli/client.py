"""What `ask` and `explain` share: a request from the command line, and the router it goes to."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
import grpc

from forebay.v1 import router_pb2 as pb
from forebay.v1 import router_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable

LABELS = ("task", "sensitivity", "tier", "language", "mode")


def request_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options from which `request` is made, where, and `--json`."""
    options = [
        click.argument("text"),
        click.option("--model", default="auto", help="auto, a route class or a target"),
        *(click.option(f"--{label}", help=f"the label {label}") for label in LABELS),
        click.option("--raw", is_flag=True, help="send the text as it is, without a chat template"),
        click.option("--system", help="a system message before the text"),
        click.option("--max-tokens", type=click.IntRange(1)),
        click.option("--temperature", type=click.FloatRange(0, 2)),
        click.option("--seed", type=click.IntRange(0)),
        click.option("--schema", type=click.Path(exists=True, dir_okay=False, path_type=Path)),
        click.option("--regex", help="a form that the answer must have"),
        click.option("--deadline-ms", type=click.IntRange(1)),
        click.option(
            "--grpc-port", envvar="FOREBAY_GRPC_PORT", default=50051, show_default=True, type=int
        ),
        click.option("--host", default="127.0.0.1", show_default=True),
        click.option("--json", "as_json", is_flag=True, help="one JSON object"),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def request(text: str, options: dict[str, Any]) -> pb.GenerateRequest:
    """Return the request that the options say."""
    made = pb.GenerateRequest(model=options["model"])
    if options["raw"]:
        made.text = text
    else:
        if options["system"]:
            made.messages.add(role="system", content=options["system"])
        made.messages.add(role="user", content=text)
    for name in ("max_tokens", "temperature", "seed"):
        if options[name] is not None:
            setattr(made.sampling, name, options[name])
    for label in LABELS:
        if options[label] is not None:
            setattr(made.context.labels, label, options[label])
    if options["deadline_ms"] is not None:
        made.context.deadline_ms = options["deadline_ms"]
    if options["schema"] is not None:
        made.guide.json_schema = options["schema"].read_text("utf-8")
    elif options["regex"] is not None:
        made.guide.regex = options["regex"]
    return made


def stub(options: dict[str, Any]) -> router_pb2_grpc.RouterStub:
    """Return a client of the router that the options name."""
    address = f"{options['host']}:{options['grpc_port']}"
    return router_pb2_grpc.RouterStub(grpc.insecure_channel(address))


def fail(error: grpc.RpcError, *, as_json: bool) -> NoReturn:
    """Say how a call ended and leave with 1."""
    code, sentence = error.code().name, error.details() or "no reason was given"
    if code == "UNAVAILABLE" and "connect" in sentence.lower():
        sentence = "no router answers there; start one with `make up`"
    if as_json:
        print(json.dumps({"error": {"code": code, "message": sentence}}))
    print(f"forebay: {code}: {sentence}", file=sys.stderr)
    sys.exit(1)
