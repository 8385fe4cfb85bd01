"""`forebay explain`: the decision on a request, without running it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
import grpc
from google.protobuf import json_format

from forebay.cli.client import fail, request, request_options, stub

if TYPE_CHECKING:
    from forebay.v1 import router_pb2 as pb


@click.command()
@request_options
def explain(text: str, *, as_json: bool, **options: Any) -> None:
    """Say where the router would send TEXT now, and why; nothing is executed."""
    try:
        said = stub(options).Explain(request(text, options))
    except grpc.RpcError as error:
        fail(error, options, as_json=as_json)
    if as_json:
        print(json.dumps(json_format.MessageToDict(said, preserving_proto_field_name=True)))
    else:
        _show(said)


def _show(said: pb.ExplainResponse) -> None:
    labels = ", ".join(f"{field.name}={value}" for field, value in said.labels.ListFields())
    print(f"class    {said.route} ({said.reason}: {said.why})")
    print(f"labels   {labels}")
    print(f"verify   {', '.join(said.verify) or 'nothing'}; text is released by {said.release}")
    print(f"policy   {said.policy}")
    for step, rung in enumerate(said.rungs, start=1):
        why = f": {rung.why}" if rung.why else ""
        print(f"rung {step}   {rung.target} -> {rung.placement} ({rung.reason}{why})")
