"""What admission has learnt, kept in a file over restarts. Losing it costs speed, never answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from forebay.policy.admission.memory import Memory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PERIOD_S = 30.0
"""How often it is written: a router that is killed forgets so much at most."""

MOST_BYTES = 1 << 20
"""A file larger than this is none of ours: one that knows a thousand builds is a tenth of it."""

_log = structlog.get_logger("forebay.learnt")


def load(path: Path) -> Memory:
    """Return what the file holds; nothing where there is none, or it cannot be read."""
    try:
        with path.open("rb") as kept:
            raw = kept.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise ValueError(f"it holds more than {MOST_BYTES} bytes")  # noqa: TRY301 - told below
        return Memory.model_validate_json(raw)
    except FileNotFoundError:
        return Memory()
    except (OSError, ValueError) as error:
        _log.warning("learnt.unread", path=str(path), why=str(error)[:200])
        return Memory()


def save(path: Path, memory: Memory) -> None:
    """Write the file whole or not at all; a disk that is full is logged."""
    beside = path.with_suffix(".new")
    try:
        beside.write_text(memory.model_dump_json(indent=1) + "\n", encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        _log.warning("learnt.unwritten", path=str(path), why=str(error))


async def keep(path: Path, memory: Callable[[], Memory], *, period_s: float = PERIOD_S) -> None:
    """Write what is known, over and over and once more when cancelled."""
    try:
        while True:
            await asyncio.sleep(period_s)
            save(path, memory())
    finally:
        save(path, memory())
