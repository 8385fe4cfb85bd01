"""A thousand requests that cannot be served, over both doors, while eight streams run."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter

import grpc
import httpx
import pytest
import yaml
from e2e.hostile import REGEXES, SCHEMAS

from forebay.cli.up import CHECKOUT
from forebay.v1 import router_pb2 as pb
from forebay.v1 import router_pb2_grpc

REQUESTS = 1000
AT_ONCE = 8
STREAMS = 8
RAW = "@schema@"
CLASS_NAMES = ("Error", "Exception", "Traceback", "<class", "forebay.", "pydantic", "object at 0x")

pytestmark = pytest.mark.timeout(400)


PATIENT = {"ttft_ms": 60_000, "tpot_ms": 60_000}


@pytest.fixture(scope="module")
def stack(start_stack, tmp_path_factory):
    """Start a stack where no machine is too slow for the streams and one request more."""
    policy = yaml.safe_load((CHECKOUT / "policies" / "default.yaml").read_text())
    for route in policy["routes"]:
        if route["name"] == "code":
            route["slo"] = PATIENT
    path = tmp_path_factory.mktemp("patient") / "policy.yaml"
    path.write_text(yaml.safe_dump(policy))
    stack = start_stack("--policy", str(path))
    yield stack
    stack.stop()


def guides(chance):
    """Return (kind, source) of a guide that no engine should compile."""
    number = str(chance.randint(100, 999))
    if chance.random() < 0.5:
        return "regex", chance.choice(REGEXES) % int(number)
    source = chance.choice(
        (
            json.dumps(chance.choice(SCHEMAS)).replace("%d", number),
            "{" * int(number),
            '{"a":' * int(number) + "1" + "}" * int(number),
            f'{{"minimum": NaN, "n": {number}}}',
        )
    )
    return "json_schema", source


SAMPLING = (
    {"temperature": -1.0},
    {"temperature": 3.0},
    {"top_p": 0.0},
    {"top_p": 1.5},
    {"presence_penalty": 9.0},
    {"frequency_penalty": -9.0},
    {"max_tokens": 0},
)


def grpc_request(chance):
    made = pb.GenerateRequest(model="code", text="Hello")
    kind = chance.randrange(3)
    if kind == 0:
        form, source = guides(chance)
        setattr(made.guide, form, source)
    elif kind == 1:
        made.text = "word " * chance.choice((9000, 12_000, 20_000))
    else:
        for name, value in chance.choice(SAMPLING).items():
            setattr(made.sampling, name, value)
    return made


def http_body(chance):
    body = {"model": "code", "messages": [{"role": "user", "content": "Hello"}]}
    kind, source = chance.randrange(3), ""
    if kind == 0:
        form, source = guides(chance)
        while form != "json_schema":
            form, source = guides(chance)
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": RAW},
        }
    elif kind == 1:
        body["messages"][0]["content"] = "word " * chance.choice((9000, 12_000, 20_000))
    else:
        body |= chance.choice(SAMPLING)
    # The schema goes in as it was written: some are no JSON, or too deep for our own writer.
    return json.dumps(body).replace(f'"{RAW}"', source)


async def over_grpc(stub, made):
    try:
        await stub.Complete(made, timeout=60)
    except grpc.aio.AioRpcError as error:
        return error.code().name, error.details() or ""
    return "OK", ""


async def over_http(client, body):
    headers = {"content-type": "application/json"}
    answer = await client.post("/v1/chat/completions", content=body, headers=headers)
    return str(answer.status_code), answer.json().get("error", {}).get("message", "")


async def one_stream(stub, begun):
    sampling = pb.Sampling(max_tokens=900, min_tokens=900, temperature=0)
    made = pb.GenerateRequest(model="code", text="Write on and on about rivers.", sampling=sampling)
    tokens = 0
    async for event in stub.Generate(made):
        begun.set()
        tokens += event.token.tokens if event.HasField("token") else 0
        assert not event.HasField("error"), event.error.message
    return tokens


async def test_a_thousand_hostile_requests_hurt_nobody(stack):
    stub_before, chance = stack.stub(), random.Random(1)
    outcomes, sentences = Counter(), []
    address = f"127.0.0.1:{stack.port('GRPC')}"
    base = f"http://127.0.0.1:{stack.port('HTTP')}"
    async with (
        grpc.aio.insecure_channel(address) as channel,
        httpx.AsyncClient(base_url=base, timeout=60) as client,
    ):
        stub = router_pb2_grpc.RouterStub(channel)
        begun = [asyncio.Event() for _ in range(STREAMS)]
        streams = [asyncio.create_task(one_stream(stub, event)) for event in begun]
        await asyncio.gather(*(event.wait() for event in begun))
        places = asyncio.Semaphore(AT_ONCE)

        async def hostile(number):
            async with places:
                if number % 2:
                    outcome, sentence = await over_grpc(stub, grpc_request(chance))
                else:
                    outcome, sentence = await over_http(client, http_body(chance))
            outcomes[outcome] += 1
            sentences.append(sentence)

        await asyncio.gather(*(hostile(number) for number in range(REQUESTS)))
        lengths = await asyncio.gather(*streams)
    print(f"hostile: {dict(outcomes)}; streams of {lengths} tokens")
    assert lengths == [900] * STREAMS
    assert set(outcomes) <= {"INVALID_ARGUMENT", "400", "413"}
    assert all(len(sentence) > 15 for sentence in sentences)
    assert not [s for s in sentences if any(name in s for name in CLASS_NAMES)]
    assert stack.stub() == stub_before
    log = (stack.home / "logs" / "triton.log").read_text(errors="replace")
    assert "is being rebuilt" not in log
