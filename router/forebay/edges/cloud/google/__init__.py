"""A model behind Google's Gemini API, or behind a server that speaks it, as an `Engine`.

The SDK's own types are not used for the prompt: they walk every message three times, which stops
the event loop for a long chat. The body is passed as `extra_body`, which the SDK sends as it is,
and the response is taken from the SDK before it reads any of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import httpx2
from google import genai
from google.genai.types import GenerateContentConfig, HttpOptions

from forebay.edges.cloud import wire
from forebay.edges.cloud.engine import ProviderEngine, hushed
from forebay.edges.cloud.google import asked
from forebay.edges.cloud.google.answer import GoogleAnswer

if TYPE_CHECKING:
    from forebay.values import Call, Request

GOOGLE_URL = "https://generativelanguage.googleapis.com"
VERSION = "v1beta"
"""Both said outright: the SDK would take others from variables of its own."""

_NO_KEY = "-"
_KEY_HEADER = "x-goog-api-key"


class GoogleEngine(ProviderEngine):
    """Calls one model by `streamGenerateContent`."""

    def _connect(self, base_url: str | None) -> None:
        hushed("google_genai")
        url = base_url or GOOGLE_URL
        self._client = wire.client(url, _Client)
        options = HttpOptions(
            base_url=url,
            api_version=VERSION,
            headers={"Accept-Encoding": "identity"},
            httpx_async_client=self._client,
            # Never used; without it the SDK makes one, and reads the certificates again.
            httpx_client=_NEVER,
        )
        # The key is none: each request brings its own, read when it is sent.
        self._sdk = genai.Client(vertexai=False, api_key=_NO_KEY, http_options=options)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _suits(self, request: Request) -> None:
        asked.form(request)

    def _answer(self, request_id: str) -> GoogleAnswer:
        return GoogleAnswer(request_id)

    async def _send(self, call: Call) -> httpx2.Response:
        headers = {} if self._key is None else {_KEY_HEADER: self._key.value()}
        options = HttpOptions(headers=headers, extra_body=asked.body(call, self._model))
        config = GenerateContentConfig(http_options=options)
        stream = await self._sdk.aio.models.generate_content_stream(
            model=self._model, contents="-", config=config
        )
        try:
            await anext(stream, None)
        except _Taken as taken:
            return taken.response
        raise self._faults.unavailable("its SDK sent nothing")


class _Taken(Exception):
    """A response that is ours to read."""

    def __init__(self, response: httpx2.Response) -> None:
        super().__init__("taken")
        self.response = response


class _Client(httpx2.AsyncClient):
    """A client that takes responses away from the SDK, and gives requests back their bounds."""

    async def send(self, request: httpx2.Request, **more: Any) -> NoReturn:
        """Send a request as the SDK made it, and raise the response."""
        request.extensions["timeout"] = self.timeout.as_dict()  # the SDK's is none
        if request.headers.get(_KEY_HEADER) == _NO_KEY:
            del request.headers[_KEY_HEADER]
        raise _Taken(await super().send(request, **more))


_NEVER = httpx2.Client(verify=False)
