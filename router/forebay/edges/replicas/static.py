"""Replicas that the policy lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from forebay.policy.replicas import ReplicaAddress


class StaticReplicas:
    """A set that never changes."""

    def __init__(
        self,
        replicas: Iterable[ReplicaAddress],
        changed: Callable[[frozenset[ReplicaAddress]], None],
    ) -> None:
        """Know the set; `changed` is told it once."""
        self._replicas = frozenset(replicas)
        self._changed = changed

    async def run(self) -> None:
        """Tell the set, and end."""
        self._changed(self._replicas)
