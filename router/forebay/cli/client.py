"""What `ask` and `explain` share: a request from the command line, and the router it goes to."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
import grpc

from forebay.edges.router_process import reached_at
from forebay.v1 import router_pb2 as pb
from forebay.v1 import router_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable

COUNT = click.IntRange(1, 2**31 - 1)
SEED = click.IntRange(0, 2**64 - 1)
LABELS = ("task", "sensitivity", "tier", "language", "mode")


class _Words(click.ParamType[str]):
    """Text that can be sent: what the shell gave as bytes that are no UTF-8 cannot."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text as it is."""
        try:
            value.encode()
        except UnicodeEncodeError:
            self.fail("it is not UTF-8 text", param, ctx)
        return value


WORDS = _Words()

HOST = click.option(
    "--host",
    envvar="FOREBAY_HOST",
    type=WORDS,
    default="127.0.0.1",
    show_default=True,
    help="where the router is",
)


def request_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options from which `request` is made, where, and `--json`."""
    options = [
        click.argument("text", type=WORDS),
        click.option("--model", type=WORDS, default="auto", help="auto, a route class or a target"),
        *(click.option(f"--{label}", type=WORDS, help=f"the label {label}") for label in LABELS),
        click.option("--raw", is_flag=True, help="send the text as it is, without a chat template"),
        click.option("--system", type=WORDS, help="a system message before the text"),
        click.option("--max-tokens", type=COUNT),
        click.option("--temperature", type=click.FloatRange(0, 2)),
        click.option("--seed", type=SEED),
        click.option("--schema", type=click.Path(exists=True, dir_okay=False, path_type=Path)),
        click.option("--regex", type=WORDS, help="a form that the answer must have"),
        click.option("--deadline-ms", type=COUNT),
        click.option(
            "--grpc-port",
            envvar="FOREBAY_GRPC_PORT",
            default=50051,
            show_default=True,
            type=click.IntRange(1, 65535),
        ),
        HOST,
        click.option("--json", "as_json", is_flag=True, help="one JSON object"),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def request(text: str, options: dict[str, Any]) -> pb.GenerateRequest:
    """Return the request that the options say.

    Raises:
        click.UsageError: they contradict each other, or hold nothing to ask.
    """
    _require_agreement(text, options)
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
        made.guide.json_schema = _schema(options["schema"])
    elif options["regex"] is not None:
        made.guide.regex = options["regex"]
    return made


def _require_agreement(text: str, options: dict[str, Any]) -> None:
    if not text:
        raise click.BadParameter("it is empty; say what to ask", param_hint="TEXT")
    if options["raw"] and options["system"] is not None:
        raise click.UsageError("--raw sends no messages, so it cannot go with --system")
    if options["schema"] is not None and options["regex"] is not None:
        raise click.UsageError("--schema and --regex are two forms of one answer; give one")


def _schema(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        why = "is not UTF-8 text"
    except OSError as error:
        why = f"cannot be read: {error.strerror}"
    raise click.BadParameter(f"{path} {why}", param_hint="--schema")


def _address(options: dict[str, Any]) -> str:
    return reached_at(options["host"], options["grpc_port"])


def stub(options: dict[str, Any]) -> router_pb2_grpc.RouterStub:
    """Return a client of the router that the options name."""
    return router_pb2_grpc.RouterStub(grpc.insecure_channel(_address(options)))


def fail(error: grpc.RpcError, options: dict[str, Any], *, as_json: bool) -> NoReturn:
    """Say how a call ended and leave with 1."""
    code, sentence = error.code().name, error.details() or "no reason was given"
    if code == "UNAVAILABLE" and "connect" in sentence.lower():
        sentence = f"no router answers at {_address(options)}; start one with `make up`"
    if as_json:
        print(json.dumps({"error": {"code": code, "message": sentence}}))
    print(f"forebay: {code}: {sentence}", file=sys.stderr)
    sys.exit(1)
