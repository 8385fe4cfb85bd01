"""Keeps what is dear to compute, under the hash of all that it depends on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from forebay.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from forebay.lab.setting import Setting

_LAB = Path(__file__).parent
_POLICY = _LAB.parent / "policy"
ADMISSION = (_POLICY / "admission", _POLICY / "health.py", _LAB.parent / "values.py")
"""The sources of our own policy: those of `policy.admission`, and what else it decides by."""
_DIGITS = 20


def code_version(*sources: Path) -> str:
    """Return a hash of the simulator's sources, and of those that are told, files or folders."""
    content = hashlib.sha256()
    for source in (_LAB, *sources):
        for path in sorted(source.glob("*.py")) if source.is_dir() else (source,):
            content.update(path.name.encode() + path.read_bytes())
    return content.hexdigest()


def setting_version(setting: Setting) -> str:
    """Return a hash of a scenario, its trace, the engine's law and what goes wrong."""
    content = hashlib.sha256()
    content.update(setting.scenario.model_dump_json().encode())
    content.update(repr((setting.law, setting.noise, setting.disturbance)).encode())
    for one in setting.trace:
        content.update(repr(one).encode())
    return content.hexdigest()


class Shelf:
    """JSON values in files of one folder, each named by its key."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def kept(self, parts: tuple[object, ...], compute: Callable[[], float]) -> float:
        """Return the number kept under `parts`, computed and kept where there is none.

        Raises:
            SettingsError: it cannot be kept.
        """
        key = hashlib.sha256(repr(parts).encode()).hexdigest()[:_DIGITS]
        path = self._folder / f"{key}.json"
        with contextlib.suppress(OSError, ValueError, KeyError):
            kept = json.loads(path.read_text(encoding="utf-8"))["value"]
            if isinstance(kept, float):
                return kept
        value = compute()
        beside = path.with_suffix(f".{os.getpid()}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            beside.write_text(
                json.dumps({"of": [str(part) for part in parts], "value": value}), encoding="utf-8"
            )
            beside.replace(path)
        except OSError as error:
            raise SettingsError(
                f"{path}: cannot be written: {error.strerror}; name a folder with FOREBAY_HOME"
            ) from None
        return value
