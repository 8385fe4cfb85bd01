"""A process of its own that tries guides out, so that a hostile one can only hurt a child of it.

It loads the grammar library and the vocabulary once, then forks for every guide: the child
compiles and walks the grammar under limits of processor time and memory, and dies with it.
Requests and verdicts are JSON lines on standard input and output.
"""

import importlib.metadata
import importlib.util
import json
import os
import resource
import select
import signal
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
from byte_level import vocabulary

XGRAMMAR = "0.1.31"
"""The version inside OpenVINO GenAI 2026.4. Another one accepts and rejects other guides."""
CPU_S = 0.5
WALL_S = 10.0
MEMORY_BYTES = 512 << 20
WALK_TOKENS = 48
RAW_VOCABULARY = 0


def library() -> Any:
    """Return xgrammar's C++ core; its Python package would import torch.

    Raises:
        RuntimeError: if it is absent, or not the version the engine has inside.
    """
    found = importlib.metadata.version("xgrammar")
    if found != XGRAMMAR:
        raise RuntimeError(f"guided decoding needs xgrammar {XGRAMMAR}, not {found}")
    files = importlib.metadata.files("xgrammar") or []
    path = next(f for f in files if f.name.startswith("xgrammar_bindings") and f.suffix == ".so")
    package = types.ModuleType("xgrammar")
    package.__path__ = []
    sys.modules["xgrammar"] = package
    spec = importlib.util.spec_from_file_location("xgrammar.xgrammar_bindings", str(path.locate()))
    if spec is None or spec.loader is None:
        raise RuntimeError("xgrammar's core cannot be loaded")
    core = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(core)
    return core


class Trial:
    """Compiles and walks one guide after another, each in a child process."""

    def __init__(self, tokenizer_json: Path, end_id: int) -> None:
        self._core = library()
        self._tokens = vocabulary(tokenizer_json)
        self._end_id = end_id
        self._info = self._core.TokenizerInfo(
            self._tokens,
            RAW_VOCABULARY,
            len(self._tokens),
            [end_id],
            True,  # noqa: FBT003
        )

    def verdict(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Return `{"guide": text}` for a guide that works, `{"why": sentence}` for another."""
        receiving, sending = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(receiving)
            self._in_child(asked, sending)
        os.close(sending)
        raw, timely = _read_all(receiving)
        os.close(receiving)
        if not timely:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if raw and os.WIFEXITED(status):
            found: dict[str, Any] = json.loads(raw)
            return found
        if not timely or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF):
            return {"why": f"the guide takes more than {CPU_S:g} s of processor time to compile"}
        return {"why": "the guide cannot be compiled within the memory it is given"}

    def _in_child(self, asked: dict[str, Any], sending: int) -> None:
        """Write the verdict and exit; never return."""
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, CPU_S)
        held = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        ceiling = held * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        try:
            said = {"guide": self._try(asked)}
        except (RuntimeError, ValueError, MemoryError) as error:
            said = {"why": _sentence(error)}
        os.write(sending, json.dumps(said).encode())
        os._exit(0)

    def _try(self, asked: dict[str, Any]) -> str:
        text = self._resolved(asked)
        grammar = self._parsed(asked["kind"], text)
        compiler = self._core.GrammarCompiler(self._info, 1, False, -1)  # noqa: FBT003
        compiled = compiler.compile_grammar(grammar)
        end_id = asked["end_id"]
        matcher = self._core.GrammarMatcher(compiled, [end_id], False, 0)  # noqa: FBT003
        self._walk(matcher, end_id)
        return text

    def _resolved(self, asked: dict[str, Any]) -> str:
        if asked["kind"] != "without_words":
            return str(asked["text"])
        words = [b"".join(self._tokens[i] for i in word).decode() for word in asked["bad_words"]]
        tag = {"type": "any_text", "excludes": words}
        return json.dumps({"type": "structural_tag", "format": tag})

    def _parsed(self, kind: str, text: str) -> Any:
        grammar = self._core.Grammar
        if kind in {"json", "json_schema"}:
            return grammar.from_json_schema(text, True, None, None, True, None, False)  # noqa: FBT003
        if kind == "regex":
            return grammar.from_regex(text, False)  # noqa: FBT003
        if kind == "ebnf_grammar":
            return grammar.from_ebnf(text, "root")
        return grammar.from_structural_tag(text)

    def _walk(self, matcher: Any, end_id: int) -> None:
        """Follow one path through the grammar, as decoding will, choosing tokens arbitrarily."""
        mask = np.full((1, -(-len(self._tokens) // 32)), -1, dtype=np.int32)
        for step in range(WALK_TOKENS):
            if matcher.is_terminated():
                return
            mask.fill(-1)
            matcher.fill_next_token_bitmask(mask, 0, False)  # noqa: FBT003
            bits = np.unpackbits(mask.view(np.uint8), bitorder="little")[: len(self._tokens)]
            allowed = np.flatnonzero(bits)
            if not allowed.size:
                if step == 0:
                    raise ValueError("the guide admits no answer at all")
                return
            choice = int(allowed[(step * 7919) % allowed.size])
            if choice == end_id:
                return
            matcher.accept_token(choice, False)  # noqa: FBT003


def _sentence(error: Exception) -> str:
    """Return the library's complaint without its log prefix and source positions."""
    if isinstance(error, MemoryError):
        return "the guide cannot be compiled within the memory it is given"
    if isinstance(error, UnicodeDecodeError):
        return "bad_words_list holds a word that is not whole text"
    text = str(error).strip().replace("\n", " ")
    _, _, tail = text.rpartition(".cc:")
    line, _, said = tail.partition(": ")
    return f"the guide cannot be compiled: {(said if line.isdigit() else text)[:300]}"


def _read_all(descriptor: int) -> tuple[bytes, bool]:
    """Return what arrives until the other end closes, and whether that was in time."""
    until = time.monotonic() + WALL_S
    chunks: list[bytes] = []
    while True:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            return b"", False
        chunk = os.read(descriptor, 65536)
        if not chunk:
            return b"".join(chunks), True
        chunks.append(chunk)


def main() -> None:
    """Answer guides from standard input until it closes."""
    os.nice(5)
    trial = Trial(Path(sys.argv[1]), int(sys.argv[2]))
    sys.stdout.write('{"ready": true}\n')
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(trial.verdict(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
