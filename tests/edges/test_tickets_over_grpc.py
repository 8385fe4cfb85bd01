"""A request that a person will answer, as gRPC's and Triton's clients are told of it."""

from __future__ import annotations

import asyncio
import json

import grpc
import pytest
import tritonclient.grpc as triton
from grpc import aio
from test_grpc_door import ask, dial, events, stub
from test_kserve_door import STREAM, client, inputs, stream_request, streamed, text
from ticketing import Away, grpc_parking

from forebay.testing import FakePerson
from forebay.v1 import router_pb2 as pb
from forebay.values import Ticket

# ---- forebay.v1 --------------------------------------------------------------------------


async def test_a_stream_of_events_ends_with_the_ticket_and_done():
    async with grpc_parking() as back, dial(back) as channel:
        told = await events(stub(channel).Generate(ask()))
    kinds = [event.WhichOneof("event") for event in told]
    assert kinds[-2:] == ["ticket", "done"]
    assert "token" not in kinds
    assert told[-2].ticket == pb.Ticket(id="t-1", state="waiting")
    assert told[-1].done.finish == "ticket"
    decided = [event.decision for event in told if event.HasField("decision")]
    assert [one.target for one in decided] == ["local", "human_review_queue"]


async def test_complete_holds_the_ticket_and_get_ticket_finds_it():
    async with grpc_parking() as back, dial(back) as channel:
        answer = await stub(channel).Complete(ask())
        found = await stub(channel).GetTicket(pb.GetTicketRequest(id=answer.ticket.id))
    assert (answer.text, answer.done.finish) == ("", "ticket")
    assert answer.decision.target == "human_review_queue"
    assert found == answer.ticket == pb.Ticket(id="t-1", state="waiting")


async def test_complete_of_an_answer_holds_no_ticket():
    async with grpc_parking(("{}",)) as back, dial(back) as channel:
        answer = await stub(channel).Complete(ask())
    assert not answer.HasField("ticket")
    assert answer.text == "{}"


class Settled(FakePerson):
    """A person who has come."""

    async def find(self, ticket_id):
        return Ticket(ticket_id, "rejected", 12.5)


async def test_get_ticket_tells_its_state_and_when_it_came():
    async with grpc_parking(person=Settled()) as back, dial(back) as channel:
        found = await stub(channel).GetTicket(pb.GetTicketRequest(id="x"))
    assert found == pb.Ticket(id="x", state="rejected", at_unix_s=12.5)


@pytest.mark.parametrize("ticket", ["", "nobody", "\x00", "\u2603"])
async def test_get_ticket_of_what_is_none_is_not_found(ticket):
    async with grpc_parking() as back, dial(back) as channel:
        with pytest.raises(aio.AioRpcError) as caught:
            await stub(channel).GetTicket(pb.GetTicketRequest(id=ticket))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details().startswith("there is no such ticket")
    assert dict(caught.value.trailing_metadata())["forebay-reason"] == "unknown_ticket"


async def test_get_ticket_while_the_queue_cannot_be_read_is_unavailable():
    async with grpc_parking(person=Away()) as back, dial(back) as channel:
        with pytest.raises(aio.AioRpcError) as caught:
            await stub(channel).GetTicket(pb.GetTicketRequest(id="t-1"))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert dict(caught.value.trailing_metadata())["retry-after"] == "1.000"


# ---- KServe v2 ---------------------------------------------------------------------------


def parameters(result):
    """Return the final mark and the ticket of a response; None where it has none."""
    told = result.get_response().parameters
    ticket = told["forebay_ticket"].string_param if "forebay_ticket" in told else None
    return told["triton_final_response"].bool_param, ticket


def blocking(port, *, empty):
    """Return what tritonclient's blocking client gets: it alone asks for an empty last response."""
    pairs = []
    with triton.InferenceServerClient(f"127.0.0.1:{port}") as made:
        made.start_stream(lambda result, error: pairs.append((result, error)))
        made.async_stream_infer("auto", inputs(**STREAM), enable_empty_final_response=empty)
        made.stop_stream()
    return pairs


@pytest.mark.parametrize(("empty", "outputs"), [(False, ["text_output"]), (True, [])])
async def test_the_last_response_of_a_triton_stream_has_the_ticket(empty, outputs):
    async with grpc_parking() as back:
        ((result, error),) = await asyncio.to_thread(blocking, back.port, empty=empty)
    assert error is None
    assert parameters(result) == (True, "t-1")
    assert [one.name for one in result.get_response().outputs] == outputs
    assert empty or text(result) == ""


@pytest.mark.parametrize("bare", [False, True])
async def test_an_answer_in_one_response_has_the_ticket(bare):
    sent = inputs(
        "Hi: ", exclude_input_in_output=(bare, bool), return_num_output_tokens=(True, bool)
    )
    async with grpc_parking() as back, client(back) as made:
        unary = await made.infer("auto", sent, request_id="7")
        ((one, _),) = await streamed(back, stream_request(*sent))
    assert (parameters(unary), parameters(one)) == ((True, "t-1"), (True, "t-2"))
    assert unary.get_response().id == "7"
    for result in (unary, one):
        assert text(result) == ("" if bare else "Hi: "), "the input, as the ensemble repeats it"
        assert result.as_numpy("num_output_tokens").tolist() == [[0]]


async def test_one_request_of_a_stream_gets_its_ticket_and_the_next_its_answer():
    async with grpc_parking(('"word"',)) as back:
        guided = {
            "guided_decoding_guide_type": (b"json_schema", object),
            "guided_decoding_guide": (b'{"type": "string"}', object),
        }
        pairs = await streamed(
            back,
            stream_request(*inputs(**STREAM), id_="parked"),
            stream_request(*inputs(**STREAM, **guided), id_="answered"),
        )
    assert [error for _, error in pairs] == [None] * len(pairs)
    tickets = {r.get_response().id: parameters(r)[1] for r, _ in pairs if parameters(r)[0]}
    assert tickets == {"parked": "t-1", "answered": None}


async def test_an_answer_that_passes_carries_no_ticket():
    async with grpc_parking(("{}",)) as back:
        pairs = await streamed(back, stream_request(*inputs(**STREAM)))
    assert {parameters(result)[1] for result, _ in pairs} == {None}
    assert "".join(text(result) for result, _ in pairs) == "{}"


async def test_with_explain_the_ticket_stands_beside_the_decision():
    context = {"forebay": json.dumps({"explain": True})}
    async with grpc_parking() as back:
        ((result, _),) = await streamed(back, stream_request(*inputs(**STREAM), parameters=context))
    told = json.loads(result.get_response().parameters["forebay"].string_param)
    assert told["decision"]["target"] == "human_review_queue"
    assert parameters(result) == (True, "t-1")
