"""Asks the trial process about guides, off the stepping thread, and remembers what it said."""

import hashlib
import json
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from guides import Guide

REMEMBERED = 1024
MAX_PENDING = 1024


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a guide: the text to compile, or why not. `ours` marks our own failure."""

    guide: str = ""
    why: str = ""
    ours: bool = False


class GuideChecker:
    """Gives verdicts in the order asked. One trial at a time: the engine needs the cores more."""

    def __init__(self, tokenizer_json: Path, end_id: int) -> None:
        self._command = [
            sys.executable,
            str(Path(__file__).with_name("guide_trial.py")),
            str(tokenizer_json),
            str(end_id),
        ]
        self._remembered: OrderedDict[str, Verdict] = OrderedDict()
        self._lock = threading.Lock()
        self._pending: SimpleQueue[tuple[Guide, int, Callable[[Verdict], None]] | None]
        self._pending = SimpleQueue()
        self._trial: subprocess.Popen[str] | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="guides", daemon=True)
        self._thread.start()

    def check(self, guide: Guide, end_id: int, then: Callable[[Verdict], None]) -> None:
        """Call `then` with the verdict: at once if it is known, else from another thread."""
        key = _key(guide, end_id)
        with self._lock:
            known = self._remembered.get(key)
            if known is not None:
                self._remembered.move_to_end(key)
        if known is not None:
            then(known)
        elif self._pending.qsize() >= MAX_PENDING:
            then(Verdict(why="too many guides are waiting to be checked; try again", ours=True))
        else:
            self._pending.put((guide, end_id, then))

    def close(self) -> None:
        """End the trial process and the thread. Guides still pending get no verdict."""
        self._closing = True
        self._pending.put(None)
        trial = self._trial
        if trial is not None:
            trial.kill()
        self._thread.join(timeout=2)

    def _work(self) -> None:
        self._start()
        while (asked := self._pending.get()) is not None and not self._closing:
            guide, end_id, then = asked
            key = _key(guide, end_id)
            with self._lock:
                known = self._remembered.get(key)
            verdict = known or self._ask(guide, end_id)
            if not verdict.ours:
                with self._lock:
                    self._remembered[key] = verdict
                    if len(self._remembered) > REMEMBERED:
                        self._remembered.popitem(last=False)
            then(verdict)

    def _ask(self, guide: Guide, end_id: int) -> Verdict:
        asked = {
            "kind": guide.kind,
            "text": guide.text,
            "bad_words": guide.bad_words,
            "end_id": end_id,
        }
        for _ in range(2):
            trial = self._trial or self._start()
            if trial is None or trial.stdin is None or trial.stdout is None:
                break
            try:
                trial.stdin.write(json.dumps(asked) + "\n")
                trial.stdin.flush()
                line = trial.stdout.readline()
                if line:
                    return Verdict(**json.loads(line))
            except OSError:
                pass
            self._trial = None
        return Verdict(why="guided decoding is not available: its checker does not run", ours=True)

    def _start(self) -> subprocess.Popen[str] | None:
        if self._closing:
            return None
        trial = subprocess.Popen(  # noqa: S603
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if trial.stdout is None or not trial.stdout.readline():
            trial.wait()
            return None
        self._trial = trial
        return trial


def _key(guide: Guide, end_id: int) -> str:
    content = f"{guide.kind}\0{end_id}\0{guide.bad_words}\0{guide.text}"
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
