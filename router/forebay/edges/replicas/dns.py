"""Replicas behind a name: every address it resolves to is one, as of a headless service.

The system's resolver tells no lifetime of its answers, so the name is asked again every
`PERIOD_S`. A lookup that fails, even with "no such name", keeps the last set: a name server
that is down has not taken the engines with it, and one that is gone is found out by calling it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import structlog

from forebay.policy.replicas import at

if TYPE_CHECKING:
    from collections.abc import Callable

    from forebay.policy.replicas import ReplicaAddress
    from forebay.policy.rules import Lookup
    from forebay.ports import Clock

    Resolve = Callable[[str, socket.AddressFamily], frozenset[str]]
    Answer = frozenset[str] | OSError

PERIOD_S = 3.0
TIMEOUT_S = 2.0

_FAMILIES = {
    "any": socket.AF_UNSPEC,
    "ipv4": socket.AF_INET,
    "ipv6": socket.AF_INET6,
}

_log = structlog.get_logger("forebay.replicas")


def addresses(name: str, family: socket.AddressFamily) -> frozenset[str]:
    """Return the IP addresses of a name; blocks for as long as the resolver takes.

    Raises:
        OSError: the name has none, or nobody answers for it.
    """
    try:
        found = socket.getaddrinfo(name, None, family, socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(str(error)) from error
    return frozenset(str(entry[4][0]) for entry in found)


class DnsReplicas:
    """Asks for a name's addresses over and over."""

    def __init__(
        self,
        rule: Lookup,
        changed: Callable[[frozenset[ReplicaAddress]], None],
        clock: Clock,
        *,
        resolve: Resolve = addresses,
        period_s: float = PERIOD_S,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Watch `rule.dns`.

        Args:
            rule: The name, the ports of every replica behind it, and the family to ask for.
            changed: Given the whole set whenever it differs from the last.
            clock: When an answer came.
            resolve: Returns a name's addresses; runs on a thread.
            period_s: From one answer to the next question.
            timeout_s: How long one question may take before it counts as failed.
        """
        self._name = rule.dns or ""
        self._ports = rule.port, rule.metrics_port
        self._family = _FAMILIES[rule.family]
        self._changed = changed
        self._clock = clock
        self._resolve = resolve
        self._period_s = period_s
        self._timeout_s = timeout_s
        self._known: frozenset[ReplicaAddress] | None = None
        self._asking: asyncio.Future[Answer] | None = None
        self._failing: str | None = None
        self._answered_s: float | None = None

    @property
    def age_s(self) -> float | None:
        """Seconds since the name was last answered; None before the first answer."""
        return None if self._answered_s is None else self._clock.now_s() - self._answered_s

    async def run(self) -> None:
        """Ask every `period_s` until cancelled."""
        while True:
            await self.once()
            await asyncio.sleep(self._period_s)

    async def once(self) -> None:
        """Ask once, and tell a set that is new."""
        answer = await self._answer()
        if isinstance(answer, OSError) or not answer:
            self._failed(str(answer) if answer else "it has no addresses")
            return
        self._answered_s = self._clock.now_s()
        if self._failing is not None:
            self._failing = None
            _log.info("replicas resolve again", name=self._name)
        replicas = frozenset(at(ip, *self._ports) for ip in answer)
        if replicas != self._known:
            self._known = replicas
            _log.info("replicas", name=self._name, addresses=sorted(r.address for r in replicas))
            self._changed(replicas)

    async def _answer(self) -> Answer:
        """Return what the resolver says in time; one that hangs is asked nothing more meanwhile."""
        asking = self._asking or self._asked()
        done, _ = await asyncio.wait({asking}, timeout=self._timeout_s)
        self._asking = None if done else asking
        return asking.result() if done else TimeoutError(f"no answer in {self._timeout_s:g} s")

    def _asked(self) -> asyncio.Future[Answer]:
        """Ask on a thread of its own: nobody waits for a resolver that hangs, at exit either."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()

        def tell(answer: Answer) -> None:
            if not future.done():
                future.set_result(answer)

        def ask() -> None:
            answer: Answer
            try:
                answer = self._resolve(self._name, self._family)
            except OSError as error:
                answer = error
            with contextlib.suppress(RuntimeError):  # the loop has closed meanwhile
                loop.call_soon_threadsafe(tell, answer)

        threading.Thread(target=ask, name=f"resolve {self._name}", daemon=True).start()
        return future

    def _failed(self, why: str) -> None:
        if why != self._failing:
            kept = 0 if self._known is None else len(self._known)
            _log.warning("replicas not resolved", name=self._name, why=why, kept=kept)
        self._failing = why
