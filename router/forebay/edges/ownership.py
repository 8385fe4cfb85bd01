"""Leases on replicas among the routers of one host, in a SQLite file that they share.

Each router writes a heartbeat every `BEAT_S`, counts as gone after `LEASE_S` without one, and
in the same transaction settles who owns what (`policy.ownership`). Nobody takes a replica from
a router that lives: only its owner hands it on, in its own beat, so that two routers never both
hold a lease. A router that cannot reach the file keeps what it holds until just before the
others would call it gone; then, as before its first beat, it shares all replicas blindly.
Times are the host's wall clock, which all of them read; one that steps back delays an expiry.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING

import apsw
import orjson
import structlog

from forebay.policy.ownership import Holding, assign, holding

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from forebay.ports import Clock

    Pools = Mapping[str, frozenset[str]]
    Holdings = Mapping[str, Holding]

BEAT_S = 1.0
LEASE_S = 5.0
BUSY_MS = 500
"""How long a beat waits for another router's transaction, which takes about a millisecond."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS routers (
  pool TEXT NOT NULL,
  router TEXT NOT NULL,
  beat_s REAL NOT NULL,
  seen TEXT NOT NULL,
  PRIMARY KEY (pool, router)
) STRICT;
CREATE TABLE IF NOT EXISTS leases (
  pool TEXT NOT NULL,
  replica TEXT NOT NULL,
  owner TEXT NOT NULL,
  PRIMARY KEY (pool, replica)
) STRICT;
"""

_FAULTS = (apsw.Error, OSError, ValueError)

_log = structlog.get_logger("forebay.ownership")


class Ownership:
    """One router's part in sharing out the replicas."""

    def __init__(
        self,
        path: Path,
        router: str,
        clock: Clock,
        *,
        pools: Callable[[], Pools],
        changed: Callable[[Holdings], None],
        beat_s: float = BEAT_S,
        lease_s: float = LEASE_S,
    ) -> None:
        """Share the replicas of each pool with the other routers at `path`.

        Args:
            path: The file; it is made if it is not there.
            router: This router's name, which no other on this file has.
            clock: Its wall clock dates the heartbeats, its monotonic one our own lease.
            pools: Returns the replicas this router could use now, by pool (one engine's
                replicas); one that it has ejected is best left out.
            changed: Given what this router may send to, by pool, whenever that differs.
            beat_s: From one heartbeat to the next.
            lease_s: A router without a heartbeat for so long is gone.
        """
        self._path = path
        self._router = router
        self._clock = clock
        self._pools = pools
        self._changed = changed
        self._beat_s = beat_s
        self._lease_s = lease_s
        self._connection: apsw.Connection | None = None
        self._inode: int | None = None
        self._using = threading.Lock()
        self._beating: asyncio.Task[Holdings] | None = None
        self._held: Holdings = {}
        self._held_s: float | None = None
        self._told: Holdings | None = None
        self._failing: str | None = None

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            await self.step()
            await asyncio.sleep(self._beat_s)

    async def step(self) -> None:
        """Beat once, and tell what changed by it; never raises for want of the file."""
        began_s, pools = self._clock.now_s(), self._pools()
        beating = self._beating or asyncio.create_task(asyncio.to_thread(self.beat, pools))
        # A disk that hangs holds a thread, not the router; its late answer is not believed.
        done, _ = await asyncio.wait({beating}, timeout=self._beat_s)
        late, self._beating = self._beating is not None, None if done else beating
        if not done:
            self._missed(f"{self._path} did not answer in {self._beat_s:g} s")
        elif (error := beating.exception()) is not None:
            if not isinstance(error, _FAULTS):
                raise error
            self._missed(str(error))
        elif not late:
            self._held, self._held_s = beating.result(), began_s
            if self._failing is not None:
                self._failing = None
                _log.info("replicas are shared out again", router=self._router)
        self._tell(pools)

    def beat(self, pools: Pools) -> Holdings:
        """Renew, expire the gone and settle who owns what; blocks for as long as the disk takes.

        Raises:
            apsw.Error: the file cannot be used now.
            OSError: neither can its directory.
            ValueError: another program wrote something else into it.
        """
        with self._using:
            try:
                connection = self._connected()
                connection.execute("BEGIN IMMEDIATE")
                settled = self._settle(connection, pools)
                connection.execute("COMMIT")
            except BaseException:
                self._disconnect()
                raise
        return settled

    def close(self) -> None:
        """Leave, so that the others need not wait for the lease to end; never raises for it."""
        if not self._using.acquire(timeout=self._beat_s):
            return  # a beat hangs in its disk; the lease will end by itself
        try:
            with contextlib.suppress(*_FAULTS):
                # Its leases need no word: who is not among the routers owns nothing.
                leave = "DELETE FROM routers WHERE router = ?"
                self._connected().execute(leave, (self._router,))
            self._disconnect()
        finally:
            self._using.release()

    def _settle(self, connection: apsw.Connection, pools: Pools) -> Holdings:
        now_s, me = self._clock.wall_s(), self._router
        connection.execute("UPDATE routers SET beat_s = ?1 WHERE beat_s > ?1", (now_s,))
        connection.execute(
            "DELETE FROM routers WHERE router = ? OR beat_s <= ?", (me, now_s - self._lease_s)
        )
        connection.executemany(
            "INSERT INTO routers VALUES (?, ?, ?, ?)",
            [(pool, me, now_s, orjson.dumps(sorted(r)).decode()) for pool, r in pools.items()],
        )
        connection.execute("DELETE FROM leases WHERE pool NOT IN (SELECT pool FROM routers)")
        return {pool: self._share(connection, pool) for pool in pools}

    def _share(self, connection: apsw.Connection, pool: str) -> Holding:
        """Settle one pool, as far as it is ours to settle; return what we may send to."""
        read = connection.execute("SELECT router, seen FROM routers WHERE pool = ?", (pool,))
        seen = {str(router): frozenset(map(str, orjson.loads(said))) for router, said in read}
        read = connection.execute("SELECT replica, owner FROM leases WHERE pool = ?", (pool,))
        held = {str(replica): str(owner) for replica, owner in read}
        wanted = assign(seen, held)
        for replica, owner in wanted.items():
            now = held.get(replica)
            if now is not None and now != self._router and replica in seen.get(now, ()):
                continue  # its owner lives and hands it on itself
            if now != owner:
                connection.execute(
                    "INSERT OR REPLACE INTO leases VALUES (?, ?, ?)", (pool, replica, owner)
                )
                held[replica] = owner
        gone = [(pool, replica) for replica in held if replica not in wanted]
        connection.executemany("DELETE FROM leases WHERE pool = ? AND replica = ?", gone)
        return holding(self._router, seen, held)

    def _tell(self, pools: Pools) -> None:
        """Tell what we may send to: as last settled, or everything once that is too old."""
        # A beat before the others call us gone, so that we have let go when they take over.
        until_s = None if self._held_s is None else self._held_s + self._lease_s - self._beat_s
        if until_s is None or self._clock.now_s() >= until_s:
            self._held = {}
        current = {pool: self._still(pool, replicas) for pool, replicas in pools.items()}
        if current != self._told:
            self._told = current
            self._changed(current)

    def _still(self, pool: str, replicas: frozenset[str]) -> Holding:
        held = self._held.get(pool)
        if held is None or not held.replicas & replicas:
            return Holding(replicas, alone=False)
        return Holding(held.replicas & replicas, held.alone)

    def _missed(self, why: str) -> None:
        if why != self._failing:
            _log.warning("cannot share out replicas", router=self._router, why=why)
        self._failing = why

    def _connected(self) -> apsw.Connection:
        """Return the connection, anew where the file is another one than before."""
        if self._connection is not None and self._inode != self._on_disk():
            self._disconnect()
        if self._connection is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = apsw.Connection(str(self._path))
            self._connection = connection
            connection.set_busy_timeout(BUSY_MS)
            connection.pragma("journal_mode", "wal")
            connection.pragma("synchronous", "normal")
            connection.execute(_SCHEMA)
            self._inode = self._on_disk()
        return self._connection

    def _on_disk(self) -> int | None:
        try:
            return self._path.stat().st_ino
        except FileNotFoundError:
            return None

    def _disconnect(self) -> None:
        """Close the connection; a transaction that is open is rolled back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(apsw.Error):
                connection.close(True)  # noqa: FBT003 - apsw's own: whatever state it is in
