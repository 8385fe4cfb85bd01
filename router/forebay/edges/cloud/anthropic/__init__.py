"""A model behind Anthropic's API, or behind a server that speaks it, as an `Engine`.

The body is passed to the SDK's `post` whole, and its stream is read here, as for OpenAI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import httpx2
from anthropic import APIConnectionError, AsyncAnthropic, AsyncStream, Omit

from forebay.edges.cloud import wire
from forebay.edges.cloud.anthropic import asked
from forebay.edges.cloud.anthropic.answer import AnthropicAnswer
from forebay.edges.cloud.engine import ProviderEngine, hushed

if TYPE_CHECKING:
    from forebay.values import Call, Request

ANTHROPIC_URL = "https://api.anthropic.com"
"""Said outright: the SDK would take another from a variable of its own."""


class AnthropicEngine(ProviderEngine):
    """Calls one model by messages."""

    def _connect(self, base_url: str | None) -> None:
        hushed("anthropic")
        url = base_url or ANTHROPIC_URL
        self._sdk = _Sdk(url)

    async def close(self) -> None:
        """Close the connections."""
        await self._sdk.close()

    def _suits(self, request: Request) -> None:
        asked.output_config(request)

    def _answer(self, request_id: str) -> AnthropicAnswer:
        return AnthropicAnswer(request_id)

    async def _send(self, call: Call) -> httpx2.Response:
        # The SDK says by which header a key travels. It builds the request before it waits for
        # anything, so no other call's key comes between.
        self._sdk.api_key = None if self._key is None else self._key.value()
        headers = {"Authorization": Omit()} if self._key is None else {}
        try:
            response = await self._sdk.post(
                "/v1/messages",
                cast_to=httpx2.Response,
                body=asked.params(call, self._model),
                options={"headers": headers},
                stream=True,
                stream_cls=AsyncStream[object],
            )
        except APIConnectionError as error:
            if isinstance(error.__cause__, wire.Refusal):
                raise error.__cause__ from None
            raise self._faults.unavailable(wire.reason(error)) from None
        # `cast_to` makes it a response, whatever the SDK's types say of a stream.
        return cast("httpx2.Response", response)


class _Sdk(AsyncAnthropic):
    """The SDK without what it adds of the environment: ANTHROPIC_* variables and the platform."""

    def __init__(self, url: str) -> None:
        super().__init__(
            api_key="-",
            base_url=url,
            max_retries=0,
            http_client=wire.client(url),
            open_telemetry=False,
        )
        # ANTHROPIC_CUSTOM_HEADERS stand here, and would be added to every request.
        self._custom_headers = {}

    @property
    def default_headers(self) -> dict[str, str | Omit]:
        """Return the headers of every request, the version of the API among them."""
        made = {
            name: said
            for name, said in super().default_headers.items()
            if not name.lower().startswith("x-stainless")
        }
        return made | {
            "Accept": "text/event-stream, application/json",
            "Accept-Encoding": "identity",
            "User-Agent": self.user_agent,
        }
