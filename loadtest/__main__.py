"""`python -m loadtest`: run a plan, render a run again, find limits, sweep, simulate a sweep."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, get_args

import click
import uvloop

from loadtest import limits as limits_of
from loadtest import plan as plans
from loadtest.fitted import FitName, compare
from loadtest.fitted_pages import worst_off, write_fitted
from loadtest.fitted_record import points as points_of
from loadtest.lines import Lines
from loadtest.pages import again, markdown, write
from loadtest.prompts import PromptsError
from loadtest.report import report
from loadtest.run import run as run_plan
from loadtest.sweep import sweep, without_a_sound_try
from loadtest.sweep_plan import load as load_sweep
from loadtest.sweep_state import SweepError
from loadtest.traces import TraceError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from loadtest.outcome import Outcome
    from loadtest.plan import Door, Plan

FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
ENGINE = plans.ROOT / "model_repository" / "tensorrt_llm" / "1" / "engine" / "engine.json"


def drive(work: Coroutine[Any, Any, Any]) -> Any:
    """Return what the work returns, on a uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def read(path: Path, times: float, door: Door | None, grpc: str | None, http: str | None) -> Plan:
    """Return the plan of a file, changed by what the command line says."""
    plan = plans.load(path).times(times)
    said = {"grpc": grpc, "http": http}
    plan = plan.changed(**{name: value for name, value in said.items() if value is not None})
    return plan if door is None else plan.all_through(door)


async def stoppable(stop: asyncio.Event) -> None:
    """Let Ctrl-C and SIGTERM end this loop's run instead of the process."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)


async def told_zero_s(stop: asyncio.Event) -> float | None:
    """Say that all is ready, and return the monotonic moment that stdin gives for the zero.

    The generators of a run's doors begin together then. Where stdin ends, nobody wants the run.
    """
    print(json.dumps({"ready": True}), flush=True)
    line = await asyncio.to_thread(sys.stdin.readline)
    if not line:
        stop.set()
        return None
    return float(line)


def writable(folder: Path) -> None:
    """Make a folder before a run whose outcomes are to lie there.

    Raises:
        PlanError: it cannot be made, or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise plans.PlanError(f"{folder}: cannot be written to: {error.strerror}") from error


def more_sockets() -> None:
    """Let this process open as many as it may: each request in flight over HTTP holds one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@click.group()
def main() -> None:
    """Load tests against a running router; exit status 0: SLOs kept, 1: not, 2: wrong use."""
    more_sockets()


@main.command()
@click.argument("plan_file", type=FILE)
@click.option("--out", type=FOLDER, help="where the report goes; default build/loadtest/NAME")
@click.option("--times", default=1.0, show_default=True, help="multiply every rate")
@click.option("--door", type=click.Choice(["grpc", "openai"]), help="send all through one door")
@click.option("--grpc", help="HOST:PORT of the gRPC door; default the port FOREBAY_GRPC_PORT")
@click.option("--http", help="URL of the HTTP door; default the port FOREBAY_HTTP_PORT")
@click.option("--json", "as_json", is_flag=True, help="the report as one JSON object")
def run(*, plan_file: Path, out: Path | None, as_json: bool, **said: Any) -> None:
    """Run PLAN_FILE, write its report, and exit by its SLOs."""
    plan = read(plan_file, **said)
    folder = out or plans.ROOT / "build" / "loadtest" / plan.name
    writable(folder)
    total = [0]

    def tell(_: Outcome) -> None:
        total[0] += 1
        if total[0] % 100 == 0:
            print(f"{total[0]} answered", file=sys.stderr)

    stop = asyncio.Event()
    ran = drive(run_plan(plan, tell=tell, begin=lambda: stoppable(stop), stop=stop))
    measured = {"loop_late_ms": ran.loop_late_ms, "busy": ran.busy}
    made = report(plan, ran.outcomes, until_s=ran.stopped_s, **measured)
    written = write(made, folder)
    print(json.dumps(made.body) if as_json else markdown(made))
    print("\n".join(f"wrote {path}" for path in written), file=sys.stderr)
    sys.exit(0 if made.passed else 1)


@main.command()
@click.argument("plan_file", type=FILE)
@click.option("--times", default=1.0)
@click.option("--door", type=click.Choice(["grpc", "openai"]), help="send all through one door")
@click.option("--only", type=click.Choice(["grpc", "openai"]), help="send only this door's share")
@click.option("--grpc")
@click.option("--http")
@click.option("--zero-told", is_flag=True, help="say when ready, and read the run's zero on stdin")
def generate(*, plan_file: Path, only: Door | None, zero_told: bool, **said: Any) -> None:
    """Run PLAN_FILE and print each outcome as a JSON line: what Locust reads.

    The last line is how late the generator was. SIGTERM ends the run: what is open is cut off as
    unfinished, and the last line comes all the same.
    """
    plan = read(plan_file, **said)
    stop = asyncio.Event()
    lines = Lines(sys.stdout)

    async def begin() -> float | None:
        await stoppable(stop)
        return await told_zero_s(stop) if zero_told else None

    try:
        ran = drive(run_plan(plan, door=only, tell=lines.put, begin=begin, stop=stop))
    finally:
        lines.close()
    late_ms = [round(late, 2) for late in ran.loop_late_ms]
    print(json.dumps({"loop_late_ms": late_ms, "busy": ran.busy}), flush=True)


@main.command("report")
@click.argument("outcomes", type=FILE)
@click.option("--plan", "plan_file", type=FILE, help="judge by this plan, not by the run's own")
@click.option("--out", type=FOLDER, required=True)
def report_again(*, outcomes: Path, plan_file: Path | None, out: Path) -> None:
    """Make the report again from OUTCOMES, a run's outcomes.jsonl, and the run.json beside it."""
    made = again(outcomes, plans.load(plan_file) if plan_file else None)
    write(made, out)
    print(markdown(made))
    sys.exit(0 if made.passed else 1)


@main.command()
@click.option(
    "--seconds", type=click.FloatRange(min=1), default=10.0, show_default=True, help="of each step"
)
@click.option("--door", type=click.Choice(["grpc", "openai"]), default="grpc", show_default=True)
@click.option(
    "--tokens", type=click.IntRange(1, 1000), default=32, show_default=True, help="of each answer"
)
@click.option(
    "--gap-ms",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="between the tokens of an answer",
)
def limits(*, seconds: float, door: Door, **said: Any) -> None:
    """Find the highest load this generator offers on one core before it falls behind."""
    for line in limits_of.climb(door, seconds=seconds, drive=drive, **said):
        print(json.dumps(line), flush=True)


@main.command("sweep")
@click.argument("sweep_file", type=FILE)
@click.option("--out", type=FOLDER, help="default build/loadtest/sweep-NAME; a run goes on there")
@click.option("--repetition", type=click.IntRange(min=1), help="only this one")
def sweep_points(*, sweep_file: Path, out: Path | None, repetition: int | None) -> None:
    """Measure capacity, then every load of SWEEP_FILE under each of its policies.

    Exit status 1: of some point no try was sound.
    """
    said = load_sweep(sweep_file)
    # A sweep that is told to end stops its stacks first, as it does at Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = out or plans.ROOT / "build" / "loadtest" / f"sweep-{said.name}"
    tell = partial(print, file=sys.stderr, flush=True)
    print(sweep(said, folder, drive, tell, repetition))
    if left := without_a_sound_try(said, folder, repetition):
        tell(f"no try was sound of {', '.join(left)}")
        sys.exit(1)


@main.command("fitted")
@click.argument("folder", type=FOLDER)
@click.option("--sweep", "file", type=FILE, help="default loadtest/sweeps/NAME.yaml of sweep-NAME")
@click.option("--engine", type=FILE, default=ENGINE, help="the engine's limits; default ours")
@click.option("--fit", type=click.Choice(get_args(FitName)), default="replayed", show_default=True)
@click.option("--within", default=3.0, show_default=True, help="exit 1 beyond so many points")
@click.option("--draws", type=click.IntRange(min=1), default=8, show_default=True, help="a mean's")
@click.option("--out", type=FOLDER, help="where fitted.json and fitted.md go; default FOLDER")
def fitted_to(
    *, folder: Path, file: Path | None, fit: FitName, within: float, draws: int, **said: Any
) -> None:
    """Simulate every sound point of a sweep's FOLDER, and say how far each is off."""
    named = folder.resolve().name.removeprefix("sweep-")
    swept = load_sweep(file or plans.ROOT / "loadtest" / "sweeps" / f"{named}.yaml")
    tell = partial(print, file=sys.stderr, flush=True)
    points = points_of(swept, folder, said["engine"])
    engines, compared = compare(points, swept.capacity.policy, draws, tell)
    print(write_fitted(engines, compared, fit, within, said["out"] or folder))
    sys.exit(1 if worst_off(compared, fit) > within else 0)


def entry() -> None:
    """Run the command; an error that a person can mend is a sentence and exit status 2."""
    try:
        main()
    except (plans.PlanError, TraceError, PromptsError, SweepError) as error:
        print(f"loadtest: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    entry()
