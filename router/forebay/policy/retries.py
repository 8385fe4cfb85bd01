"""How often a router may call again what failed: a share of what it was asked, and no more.

When every provider fails, each request would try each of them, and the storm would be fed by who
suffers from it. So a call after one that failed is paid from a bucket that requests fill. A call
that admission never made costs nothing, and a stronger model for an answer that failed its
verifiers is no retry.
"""

from __future__ import annotations

SHARE = 0.2
"""What each request puts in: at most 1.2 calls for each request, in the long run."""

MOST = 10.0
"""What the bucket holds: so many calls may fail at once after a quiet time and be tried again."""


class RetryBudget:
    """The bucket of one router; requests in any order share it."""

    def __init__(self, share: float = SHARE, most: float = MOST) -> None:
        """Begin with a full bucket, so that a router's first failure is tried again."""
        self._share = share
        self._most = most
        self._left = most

    def asked(self) -> None:
        """Note one request."""
        self._left = min(self._most, self._left + self._share)

    def left(self) -> bool:
        """Return whether one call may be tried again."""
        return self._left >= 1.0

    def spend(self) -> bool:
        """Return whether one call may be tried again, and count it if so."""
        if not self.left():
            return False
        self._left -= 1.0
        return True
