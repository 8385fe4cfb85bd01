"""`python -m enginebuild.validate`: every published figure, and what we would have said of it."""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from enginebuild import measured
from enginebuild.measured import Case, Estimate
from enginebuild.performance import Workload
from enginebuild.published import Row, deployment, predicted_tokens_per_s, rows, served

ONE_GPU, MORE_GPUS = 0.15, 0.20  # how far a prediction may be off


@dataclass(frozen=True, slots=True)
class Checked:
    """One figure beside two predictions, as shares of it. None where there is none."""

    row: Row
    ours: float | None
    theirs: float | None

    @property
    def bound(self) -> float:
        """How far off a prediction of this row may be."""
        return ONE_GPU if self.row.table.tp * self.row.table.pp == 1 else MORE_GPUS

    @property
    def better(self) -> float | None:
        """The share that is nearer to one."""
        shares = [share for share in (self.ours, self.theirs) if share is not None]
        return min(shares, key=lambda share: abs(share - 1), default=None)


def checked(*, ask_aiconfigurator: bool) -> Iterator[Checked]:
    """Yield each published row with its predictions, in the file's order."""
    for row in rows():
        ours = predicted_tokens_per_s(row)
        theirs = _theirs(row) if ask_aiconfigurator else None
        yield Checked(row, _share(ours, row), _share(theirs, row))


def _theirs(row: Row) -> float | None:
    """Return aiconfigurator's rate at the batch that fits, or at less where it refuses that."""
    if row.table.layout != "tp":
        return None
    table, fits = row.table, served(row, deployment(row)).in_flight
    for batch in (fits, fits * 3 // 4, fits // 2):
        workload = Workload(row.input_tokens, row.output_tokens)
        if batch < 1:
            continue
        case = Case(table.model, row.sku, table.precision, table.tp, table.pp, batch, workload)
        said = measured.estimate(case)
        if isinstance(said, Estimate):
            return said.tokens_per_s
    return None


def _share(tokens_per_s: float | None, row: Row) -> float | None:
    return None if tokens_per_s is None else tokens_per_s / row.tokens_per_s


def within(found: list[Checked], which: str) -> tuple[int, int]:
    """Return how many rows are within their bound, of those that have a prediction."""
    shares = [(getattr(one, which), one.bound) for one in found]
    told = [(share, bound) for share, bound in shares if share is not None]
    return sum(abs(share - 1) <= bound for share, bound in told), len(told)


def report(found: list[Checked], version: str | None) -> Iterator[str]:
    """Yield the page: a summary by kind of row, then every row."""
    yield from _summary(found, version)
    table = None
    for one in found:
        if one.row.table is not table:
            table = one.row.table
            yield ""
            layout = f"{table.layout} {table.tp}" + (f" pp {table.pp}" if table.pp > 1 else "")
            yield f"### {table.model}, {table.precision}, {layout}"
            yield ""
            fitted = {"no": "no constant was fitted to it", "dense": "fitted", "moe": "fitted"}
            yield f"{table.source}; {fitted[table.fitted]}."
            yield ""
            yield "| SKU | in, out | published tokens/s | ours | aiconfigurator | within |"
            yield "|---|---|---:|---:|---:|---|"
        yield _line(one)


def _summary(found: list[Checked], version: str | None) -> Iterator[str]:
    kinds = (
        ("one GPU, dense, fitted", [o for o in found if _kind(o) == (False, "dense")]),
        ("several GPUs, dense, fitted", [o for o in found if _kind(o) == (True, "dense")]),
        ("one GPU, dense, not fitted", [o for o in found if _kind(o) == (False, "no")]),
        ("several GPUs, not fitted", [o for o in found if _kind(o) == (True, "no")]),
        ("one GPU, experts, fitted", [o for o in found if _kind(o) == (False, "moe")]),
        ("all", found),
    )
    theirs = f"aiconfigurator {version}" if version else "aiconfigurator (not installed)"
    yield "Rows within ±15 % on one GPU, ±20 % on more; of those that the model covers."
    yield ""
    yield f"| kind | rows | ours | {theirs} | better of both |"
    yield "|---|---:|---:|---:|---:|"
    for name, some in kinds:
        cells = (within(some, which) for which in ("ours", "theirs", "better"))
        shown = " | ".join(f"{good} of {told}" for good, told in cells)
        yield f"| {name} | {len(some)} | {shown} |"


def _kind(one: Checked) -> tuple[bool, str]:
    return one.row.table.tp * one.row.table.pp > 1, one.row.table.fitted


def _line(one: Checked) -> str:
    row = one.row
    if one.better is None:
        verdict = "not modelled"
    else:
        verdict = "yes" if abs(one.better - 1) <= one.bound else "no"
    cells = (
        row.sku,
        f"{row.input_tokens}, {row.output_tokens}",
        f"{row.tokens_per_s:.0f}",
        "-" if one.ours is None else f"{one.ours:.2f}",
        "-" if one.theirs is None else f"{one.theirs:.2f}",
        verdict,
    )
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Print the table, or put it into a page between its markers; return 0."""
    parser = argparse.ArgumentParser(prog="enginebuild.validate", description=__doc__)
    parser.add_argument("--page", type=Path, help="a page to renew, below its line '## The rows'")
    parser.add_argument("--ours-only", action="store_true", help="do not ask aiconfigurator")
    asked = parser.parse_args()
    version = None if asked.ours_only else measured.installed()
    found = list(checked(ask_aiconfigurator=version is not None))
    text = "\n".join(report(found, version)) + "\n"
    if asked.page is None:
        sys.stdout.write(text)
        return 0
    head, mark, _ = asked.page.read_text(encoding="utf-8").partition("## The rows\n")
    asked.page.write_text(f"{head}{mark}\n{text}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
