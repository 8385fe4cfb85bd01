"""What `forebay simulate` does: a scenario and a question in, rows out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from forebay.errors import SettingsError
from forebay.lab.rows import POLICIES, Row, Rows
from forebay.lab.scenario import Disturbance, law_of, read_scenario
from forebay.lab.setting import Setting
from forebay.lab.shelf import Shelf
from forebay.lab.traces import merged, read_trace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from forebay.lab.scenario import Scenario
    from forebay.lab.traces import Traced


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked; `traces` empty means the scenario's, `columns` and `form` None likewise."""

    scenario: Path
    loads: Sequence[float]
    policies: Sequence[str]
    seeds: Sequence[int]
    traces: Sequence[Path] = ()
    columns: Mapping[str, str] | None = None
    form: str | None = None
    disturbance: str | None = None
    oracles: bool = False
    search: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows to be played, and what they are relative to."""

    rows: Rows
    question: Question

    @property
    def cut(self) -> tuple[int, int]:
        """How many of the trace's answers are longer than any may be here, and how long that is."""
        setting = self.rows.setting
        most = setting.disturbance.max_tokens or setting.scenario.max_tokens
        return sum(one.output_tokens > most for one in setting.trace), most

    def played(self) -> Iterator[Row]:
        """Play the rows: by load, policy, seed, in the order asked."""
        for load in self.question.loads:
            for policy in self.question.policies:
                for seed in self.question.seeds:
                    asked = self.question
                    yield self.rows.row(
                        load, policy, seed, oracles=asked.oracles, search=asked.search
                    )


def answer(question: Question, home: Path) -> Answer:
    """Read all that is named and measure 1x; the rows are played when they are asked for.

    Raises:
        SettingsError: a file, an engine, a policy or a disturbance is wrong or unknown.
    """
    scenario = read_scenario(question.scenario)
    beside = question.scenario.parent
    for policy in question.policies:
        if policy not in POLICIES:
            raise SettingsError(f"no policy {policy!r}; there are {', '.join(POLICIES)}")
    wrong = Disturbance()
    if question.disturbance is not None:
        if question.disturbance not in scenario.disturbances:
            known = ", ".join(scenario.disturbances) or "none"
            raise SettingsError(f"no disturbance {question.disturbance!r}; there are {known}")
        wrong = scenario.disturbances[question.disturbance]
    if wrong.budget_share is not None and (others := set(question.policies) - {"forebay"}):
        raise SettingsError(
            f"disturbance {question.disturbance!r} gives a budget, which {min(others)} does not "
            "keep; ask for --policies forebay"
        )
    law, noise = law_of(scenario, question.form or scenario.engine, beside)
    setting = Setting(scenario, _trace(question, scenario), law, noise, wrong)
    return Answer(Rows(setting, Shelf(home / "simulate")), question)


def as_json(row: Row) -> dict[str, object]:
    """Return a row as it is printed."""
    return asdict(row)


def _trace(question: Question, scenario: Scenario) -> list[Traced]:
    """Return the requests; a file of the scenario, or one that bears its name, has its mix."""
    beside = question.scenario.parent
    columns = question.columns or scenario.columns.model_dump()
    if not question.traces:
        files = [(beside / one.file, one.mix) for one in scenario.traces]
    else:
        named = {one.file.rsplit("/", 1)[-1]: one.mix for one in scenario.traces}
        there = {(beside / one.file).resolve(): one.mix for one in scenario.traces}
        files = [
            (path, there.get(path.resolve()) or named.get(path.name, "other"))
            for path in question.traces
        ]
    return merged([read_trace(path, columns, mix) for path, mix in files])
