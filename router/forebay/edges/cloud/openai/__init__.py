"""A model behind OpenAI's API, or behind a server that speaks it, as an `Engine`.

The body is passed to the SDK's `post` whole: `create` walks it against types for each message,
which stops the event loop for a long chat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import httpx2
from openai import APIConnectionError, AsyncOpenAI, AsyncStream, Omit

from forebay.edges.cloud import wire
from forebay.edges.cloud.engine import ProviderEngine, hushed
from forebay.edges.cloud.openai import asked
from forebay.edges.cloud.openai.answer import OpenAIAnswer

if TYPE_CHECKING:
    from forebay.values import Call, Request

OPENAI_URL = "https://api.openai.com/v1"
"""Said outright: the SDK would take another from a variable of its own."""


class OpenAIEngine(ProviderEngine):
    """Calls one model by chat completions."""

    def _connect(self, base_url: str | None) -> None:
        hushed("openai")
        url = base_url or OPENAI_URL
        # The key is none: each request brings its own, read when it is sent.
        self._sdk = _Sdk(api_key="-", base_url=url, max_retries=0, http_client=wire.client(url))

    async def close(self) -> None:
        """Close the connections."""
        await self._sdk.close()

    def _suits(self, request: Request) -> None:
        asked.response_format(request)

    def _answer(self, request_id: str) -> OpenAIAnswer:
        return OpenAIAnswer(request_id)

    async def _send(self, call: Call) -> httpx2.Response:
        said = Omit() if self._key is None else f"Bearer {self._key.value()}"
        try:
            response = await self._sdk.post(
                "/chat/completions",
                cast_to=httpx2.Response,
                body=asked.params(call, self._model, compatible=self._compatible),
                options={"headers": {"Authorization": said}},
                stream=True,
                stream_cls=AsyncStream[object],
            )
        except APIConnectionError as error:
            raise self._faults.unavailable(wire.reason(error)) from None
        # `cast_to` makes it a response, whatever the SDK's types say of a stream.
        return cast("httpx2.Response", response)


class _Sdk(AsyncOpenAI):
    """The SDK without what it adds of the environment: OPENAI_* variables and the platform."""

    @property
    def default_headers(self) -> dict[str, str | Omit]:
        """Return the headers of every request."""
        return {
            "Accept": "text/event-stream, application/json",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "User-Agent": self.user_agent,
        }
