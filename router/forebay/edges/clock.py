"""The clock of the running system."""

from __future__ import annotations

import time


class SystemClock:
    """Monotonic seconds for decisions, Unix seconds for records."""

    now_s = staticmethod(time.monotonic)
    wall_s = staticmethod(time.time)
