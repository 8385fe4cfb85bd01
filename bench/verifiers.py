"""Measures the verifiers of tool calls, citations and grounding on real texts.

    PYTHONPATH=router .venv/bin/python -m bench.verifiers

Prints Markdown tables: of each kind of case how many came out as they should, with Wilson's 95 %
interval, every one that did not, and what a verdict costs.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from bench import call_cases, citation_cases
from bench.intervals import wilson

from forebay.policy.rules import Route
from forebay.policy.verify import Gate, subject
from forebay.testing import request
from forebay.values import ToolCall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from forebay.values import Verdict

Row = tuple[str, bool, bool, str]
"""The kind of a case, whether it should pass, whether it did, and how it is listed."""

MISSES_LISTED = 60


def tell(title: str, rows: Iterable[Row]) -> None:
    """Print a table of kinds, and the misses."""
    rows = list(rows)
    print(f"\n### {title}\n")
    print("| case | should | cases | did | share | 95 % interval |\n|---|---|---|---|---|---|")
    kinds: dict[tuple[str, bool], list[bool]] = defaultdict(list)
    for kind, right, passed, _ in rows:
        kinds[kind, right].append(passed is right)
    for right in (True, False):
        every = [one for (_, is_right), said in kinds.items() if is_right is right for one in said]
        kinds["**all**", right] = every
        for (kind, is_right), said in kinds.items():
            if is_right is right and said:
                low, high = wilson(sum(said), len(said))
                should = "pass" if right else "fail"
                print(
                    f"| {kind} | {should} | {len(said)} | {sum(said)} |"
                    f" {sum(said) / len(said):.3f} | {low:.3f} to {high:.3f} |"
                )
    misses = [row for row in rows if row[1] is not row[2]]
    print(f"\nMisses: {len(misses)}.")
    for kind, right, _, told in misses[:MISSES_LISTED]:
        print(f"- {kind}, {'failed' if right else 'passed'}: {told}")


def calls() -> Iterator[Row]:
    """Judge each call as text and as a call that the engine makes itself."""
    route = Route(model="m", verify=("tool_call_schema",))
    for case in call_cases.cases():
        asked = request(tools=(case.tool,))
        looked = subject(route, asked, enforced=False)
        text = f'{{"name": {json.dumps(case.name)}, "arguments": {case.arguments}}}'
        for how in ("text", "native"):
            gate = Gate(route.verify, looked)
            if how == "text":
                gate.feed(text)
            else:
                gate.called((ToolCall("1", case.name, case.arguments),))
            (verdict,) = gate.finish()[1]
            told = f"`{case.id}` `{case.name}` `{case.arguments[:120]}`: {verdict.reason}"
            yield f"{case.kind}, {how}", case.right, verdict.outcome == "passed", told


def judged(name: str, case: citation_cases.Case) -> Verdict:
    """Return the verdict of one verifier on a case."""
    route = Route(model="m", verify=(name,))
    gate = Gate(route.verify, subject(route, request(sources=case.sources), enforced=False))
    gate.feed(case.answer)
    return gate.finish()[1][0]


def citations(corpus: str) -> Iterator[Row]:
    """Judge the answers of one corpus by what they cite."""
    for case in citation_cases.cases():
        if case.corpus == corpus:
            verdict = judged("citations_required", case)
            said = f"{_end(case.answer)} ({verdict.reason or verdict.outcome})"
            yield case.kind, case.right, verdict.outcome == "passed", said


def grounded(corpus: str) -> Iterator[Row]:
    """Judge the same answers, but for those that are wrong in their citations alone."""
    for case in citation_cases.cases():
        if case.corpus == corpus and not case.cites:
            plain = citation_cases.uncited(case)
            verdict = judged("grounding", plain)
            said = f"{_end(plain.answer)} ({verdict.reason or verdict.outcome})"
            yield case.kind, case.right, verdict.outcome == "passed", said


def _end(answer: str) -> str:
    return f"`{answer if len(answer) < 170 else '…' + answer[-169:]}`"


def cost() -> None:
    """Print what verdicts cost: of the cases, and of the largest answers and sources."""
    some = list(citation_cases.cases())
    print("\n### Cost\n\n| what | median ms | largest ms |\n|---|---|---|")
    for name in ("citations_required", "grounding"):
        _timed(f"{name}, a case, its sources read before", [
            (lambda name=name, case=case: judged(name, case)) for case in some])  # fmt: skip
        for kind, answer in LARGEST.items():
            case = replace(some[0], answer=answer)
            judged(name, case)
            _timed(
                f"{name}, 32,768 characters: {kind}",
                [lambda name=name, case=case: judged(name, case)] * 5,
            )
    words = " ".join(f"word{n} stands here." for n in range(12_000))[: 250 * 1024]
    made = [citation_cases.Source(f"{n}", words) for n in range(5)]
    _timed("reading 250 KiB of sources", [
        (lambda one=one: judged("grounding", replace(some[0], answer="", sources=(one,))))
        for one in made])  # fmt: skip


LARGEST = {
    "prose": ("The walls of a box are one inch thick and five inches long [1]. " * 512)[:32_768],
    "brackets": "[" * 32_768,
    "citations": ("[1]" * 11_000)[:32_768],
    "short statements": ("a1 b2 [1]" * 4_000)[:32_768],
    "negations": ("not word " * 4_000)[:32_768],
    "lines": ("ab cd\n" * 6_000)[:32_768],
}


def _timed(what: str, runs: list[Callable[[], object]]) -> None:
    took = []
    for run in runs:
        begun = time.perf_counter()
        run()
        took.append((time.perf_counter() - begun) * 1000)
    took.sort()
    print(f"| {what} | {took[len(took) // 2]:.2f} | {took[-1]:.2f} |")


if __name__ == "__main__":
    tell("tool_call_schema on BFCL", calls())
    for corpus in ("ALCE", "gsm8k", "MT-bench"):
        tell(f"citations_required on {corpus}", citations(corpus))
    for corpus in ("ALCE", "gsm8k", "MT-bench"):
        tell(f"grounding on {corpus}", grounded(corpus))
    cost()
