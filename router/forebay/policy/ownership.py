"""Which of several routers sends to which replicas.

Routers that share replicas blindly each see the others' requests only as late as their scrapes;
a replica that one router owns is known to it exactly. So each replica has one owner, the counts
of two routers differ by at most one, and as few replicas as can be change hands when a router
comes or goes: what is held stays within what is fair, what is free goes to who has fewest, and
rendezvous hashing breaks ties. With fewer replicas than routers not everyone can own one: then
the rest share all there are, blind.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


_UNFAIR = 2
"""Replicas that one router has more than another, from which on one changes hands."""


@dataclass(frozen=True, slots=True)
class Holding:
    """The replicas that a router may send to; unless `alone`, others send there, too."""

    replicas: frozenset[str]
    alone: bool = True


def assign(seen: Mapping[str, frozenset[str]], held: Mapping[str, str]) -> dict[str, str]:
    """Return the owner of every replica that some router sees.

    Every router that computes this from the same facts finds the same, and computing it again
    from the outcome changes nothing.

    Args:
        seen: Each live router, with the replicas it knows and could use.
        held: Each replica that has an owner now; owners that are not live count as none.
    """
    owned: dict[str, set[str]] = {router: set() for router in sorted(seen)}
    free = []
    for replica in sorted(frozenset().union(*seen.values())):
        owner = held.get(replica, "")
        if replica in seen.get(owner, ()):
            owned[owner].add(replica)
        else:
            free.append(replica)
    for replica in free:
        able = [router for router in owned if replica in seen[router]]
        owned[min(able, key=lambda r: (len(owned[r]), _weight(r, replica)))].add(replica)
    while (move := _move(seen, owned)) is not None:
        giver, taker, replica = move
        owned[giver].remove(replica)
        owned[taker].add(replica)
    return {replica: router for router, replicas in owned.items() for replica in replicas}


def _move(
    seen: Mapping[str, frozenset[str]], owned: Mapping[str, set[str]]
) -> tuple[str, str, str] | None:
    """Return who hands what to whom next, the greatest difference first; None once it is fair."""
    size = {router: len(replicas) for router, replicas in owned.items()}
    apart = ((size[giver] - size[taker], giver, taker) for giver in owned for taker in owned)
    for difference, giver, taker in sorted(apart, reverse=True):
        if difference < _UNFAIR:
            return None
        if able := owned[giver] & seen[taker]:
            return giver, taker, min(able, key=lambda r: _weight(taker, r))
    return None


def holding(router: str, seen: Mapping[str, frozenset[str]], held: Mapping[str, str]) -> Holding:
    """Return what `router` may send to, by who holds what now.

    A router that holds nothing it can use shares all it sees, and then nobody is alone with
    what such a router sees.
    """
    mine = frozenset(r for r, owner in held.items() if owner == router and r in seen[router])
    owning: Counter[str] = Counter()
    for replica, owner in held.items():
        owning[owner] += replica in seen.get(owner, ())
    idle = [other for other in seen if not owning[other]]
    if not mine:
        return Holding(seen[router], alone=len(seen) == 1)
    return Holding(mine, alone=not any(mine & seen[other] for other in idle))


def _weight(router: str, replica: str) -> bytes:
    """Return a router's draw for a replica; the lowest wins (rendezvous hashing)."""
    return hashlib.blake2b(f"{router}\0{replica}".encode(), digest_size=16).digest()
