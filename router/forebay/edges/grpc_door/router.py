"""`forebay.v1.Router`: the typed door."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from forebay.edges.grpc_door import wire
from forebay.edges.grpc_door.arrival import arrival_of
from forebay.edges.grpc_door.rpc import Patience, RecordedError
from forebay.errors import ForebayError
from forebay.v1 import router_pb2 as pb
from forebay.values import Decided, Done, Failed, Ticket, Token, Verdict

if TYPE_CHECKING:
    from grpc import aio

    from forebay.corridor import Corridor
    from forebay.ports import Clock

    Call = aio.ServicerContext[Any, Any]


class RouterService:
    """Answers `forebay.v1.Router` out of the corridor."""

    def __init__(self, corridor: Corridor, clock: Clock, stall_s: float) -> None:
        self._corridor = corridor
        self._clock = clock
        self._stall_s = stall_s

    async def Generate(self, message: pb.GenerateRequest, context: Call) -> None:  # noqa: N802
        """Write each event as it happens; a failure is an event and then the call's status."""
        request = wire.request_of(message, arrival_of(context, self._clock), stream=True)
        tell = wire.EVENTS
        async with Patience(self._stall_s) as patience:
            async with aclosing(self._corridor.run(request)) as events:
                async for event in events:
                    if isinstance(event, Decided):
                        told = pb.GenerateEvent(decision=wire.decision(request.id, event))
                    elif isinstance(event, Failed):
                        told = pb.GenerateEvent(error=wire.error(event.error))
                    else:
                        told = tell[type(event)](event)
                    await patience.during(context.write(told))
            if isinstance(event, Failed):
                raise RecordedError(event.error)

    async def Complete(  # noqa: N802
        self, message: pb.GenerateRequest, context: Call
    ) -> pb.CompleteResponse:
        """Return the whole answer, with the decision and verdicts that stand behind it."""
        request = wire.request_of(message, arrival_of(context, self._clock), stream=False)
        answer = pb.CompleteResponse()
        texts: list[str] = []
        async with aclosing(self._corridor.run(request)) as events:
            async for event in events:
                if isinstance(event, Token):
                    texts.append(event.text)
                elif isinstance(event, Decided):
                    answer.decision.CopyFrom(wire.decision(request.id, event))
                    del answer.verdicts[:]
                elif isinstance(event, Verdict):
                    answer.verdicts.append(wire.verdict(event))
                elif isinstance(event, Ticket):
                    answer.ticket.CopyFrom(wire.ticket(event))
                elif isinstance(event, Done):
                    answer.done.CopyFrom(wire.done(event))
                elif isinstance(event, Failed):
                    raise RecordedError(event.error)
        answer.text = "".join(texts)
        return answer

    async def Explain(  # noqa: N802
        self, message: pb.GenerateRequest, context: Call
    ) -> pb.ExplainResponse:
        """Return the decision; nothing is executed."""
        request = wire.request_of(message, arrival_of(context, self._clock), stream=True)
        try:
            return wire.explanation(await self._corridor.explain(request))
        except ForebayError as error:
            raise RecordedError(error) from None

    async def GetTicket(  # noqa: N802
        self, message: pb.GetTicketRequest, _context: Call
    ) -> pb.Ticket:
        """Return how a request stands that waits for a person."""
        try:
            return wire.ticket(await self._corridor.ticket(message.id))
        except ForebayError as error:
            raise RecordedError(error) from None
