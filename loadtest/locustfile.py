"""Locust's face of the load test: web UI or headless, one plan, two users, the SLO report.

    locust -f loadtest/locustfile.py --plan loadtest/plans/quick.yaml [--headless]

Locust is a closed loop: a user waits for its answer before it asks again, so a slow service is
asked less and looks better than it is. Here a user is a door instead. `GrpcUser` and `OpenAIUser`
each start the open-loop generator (`python -m loadtest generate`) as a process of its own and
hand its outcomes to Locust's statistics. The process is apart because Locust patches the
standard library for gevent, under which grpc.aio does not run, and because Locust's own work
must not delay a request that is due.

In the statistics a response time is E2E from the scheduled moment, and a failure is a request
that missed an SLO of its class, was refused or broke: 1 - failure ratio is attainment. `/slo` in
the web UI is the report so far; it is written to files when the run ends.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

# Locust patches the standard library; what follows must be imported after it.
from locust import LoadTestShape, User, events, task  # noqa: E402
from locust.runners import LocalRunner  # noqa: E402

from loadtest import plan as plans  # noqa: E402
from loadtest.outcome import of_json  # noqa: E402
from loadtest.pages import html, summary, write  # noqa: E402
from loadtest.report import report  # noqa: E402

if TYPE_CHECKING:
    from locust.env import Environment

    from loadtest.outcome import Outcome
    from loadtest.plan import Plan
    from loadtest.report import Report

WRONG_USE = 2
_log = logging.getLogger("loadtest")


class MissedSLO(Exception):
    """A request that was answered too late."""


class Unanswered(Exception):
    """A request that was refused, broke, or was cut off."""


class Run:
    """What this Locust process knows of the run that goes on."""

    def __init__(self) -> None:
        self.waiting = True
        """Whether Locust has not yet told that the test starts: it asks the shape first."""
        self.plan: Plan | None = None
        self.outcomes: list[Outcome] = []
        self.loop_late_ms: list[float] = []
        self.busy = 0.0
        self.arguments: list[str] = []
        self.ended: set[str] = set()
        self.failed = ""
        self.began_s = time.monotonic()

    def clear(self) -> None:
        """Forget the last run."""
        self.__init__()  # type: ignore[misc]

    def report(self, *, whole: bool) -> Report | None:
        """Return the report: of the whole run, or of what is due and answered so far."""
        if self.plan is None:
            return None
        # A request counts only once its own time is over: before that, to be unanswered is no miss.
        so_far_s = time.monotonic() - self.began_s - 5.0
        until_s = None if whole else max(so_far_s, 1.0)
        return report(
            self.plan,
            self.outcomes,
            loop_late_ms=self.loop_late_ms,
            busy=self.busy,
            until_s=until_s,
        )


RUN = Run()


class Door(User):
    """One door: runs the plan's requests for it, all of them, from one process."""

    abstract = True
    fixed_count = 1
    door = ""

    @task
    def offer(self) -> None:
        """Read the generator's outcomes until it ends, then wait for the run's end."""
        if self.door in RUN.ended or RUN.plan is None:
            time.sleep(0.5)  # gevent's: other greenlets go on
            return
        command = [sys.executable, "-m", "loadtest", "generate", *RUN.arguments]
        generator = subprocess.Popen(  # noqa: S603 - our own module
            [*command, "--only", self.door],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        try:
            assert generator.stdout is not None
            for line in generator.stdout:
                self._take(json.loads(line))
            if generator.wait():
                assert generator.stderr is not None
                RUN.failed = generator.stderr.read().strip() or "the generator ended early"
                _log.error("%s: %s", self.door, RUN.failed)
        finally:
            if generator.poll() is None:
                generator.kill()
                generator.wait()
            RUN.ended.add(self.door)

    def _take(self, said: dict[str, Any]) -> None:
        if "loop_late_ms" in said:
            RUN.loop_late_ms += said["loop_late_ms"]
            RUN.busy = max(RUN.busy, said["busy"])
            return
        outcome = of_json(said)
        RUN.outcomes.append(outcome)
        assert RUN.plan is not None
        missed = outcome.missed(RUN.plan.by_name[outcome.klass].slo)
        self.environment.events.request.fire(
            request_type=outcome.door,
            name=outcome.klass,
            response_time=outcome.e2e_ms,
            response_length=outcome.completion_tokens,
            exception=_exception(outcome, missed),
            context={},
        )


def _exception(outcome: Outcome, missed: str) -> Exception | None:
    if not missed:
        return None
    if missed in ("ttft", "tpot", "e2e"):
        return MissedSLO(f"missed its {missed.upper()} SLO")
    return Unanswered(f"{outcome.ended}: {outcome.code} {outcome.reason}".rstrip())


class GrpcUser(Door):
    """Sends through `forebay.v1.Router/Generate`."""

    door = "grpc"


class OpenAIUser(Door):
    """Sends through `/v1/chat/completions` with server-sent events."""

    door = "openai"


class UntilThePlanEnds(LoadTestShape):
    """One user a door until every door's generator has ended; the plan has the arrivals."""

    def reset_time(self) -> None:
        """Forget the last run; Locust calls this before it asks for the first tick of one."""
        super().reset_time()  # type: ignore[no-untyped-call]
        RUN.clear()

    def tick(self) -> tuple[int, float] | None:
        """Return how many users run now, or None at the end."""
        assert self.runner is not None
        doors = {getattr(one, "door", "") for one in self.runner.user_classes}
        if not RUN.waiting and (RUN.plan is None or doors <= RUN.ended):
            return None
        return len(doors), len(doors)


def _options(parser: Any) -> None:
    add = parser.add_argument
    add("--plan", default="loadtest/plans/quick.yaml", help="a plan file", is_required=True)
    add("--times", type=float, default=1.0, help="multiply every rate")
    add("--all-through", default="", choices=["", "grpc", "openai"], help="one door for all")
    add("--grpc", default="", help="HOST:PORT of the gRPC door")
    add("--http", default="", help="URL of the HTTP door")
    add("--report", default="", help="folder of the report; default build/loadtest/locust-NAME")


def _init(environment: Environment, **_: Any) -> None:
    if environment.runner is not None and not isinstance(environment.runner, LocalRunner):
        _log.error("the load test runs in one Locust process; leave out --master and --worker")
        sys.exit(WRONG_USE)
    if environment.web_ui is not None and environment.web_ui.app is not None:
        environment.web_ui.app.add_url_rule("/slo", "slo", _page)


def _page() -> str:
    made = RUN.report(whole=len(RUN.ended) > 0)
    if made is None:
        return "<p>No run yet. Start one, then come back; this page is the report so far.</p>"
    return html(made)


def _start(environment: Environment, **_: Any) -> None:
    said: Any = environment.parsed_options
    arguments = [str(Path(said.plan).resolve()), "--times", str(said.times)]
    for option, value in (("grpc", said.grpc), ("http", said.http)):
        if value:
            arguments += [f"--{option}", value]
    if said.all_through:
        arguments += ["--door", said.all_through]
    RUN.waiting = False
    try:
        RUN.plan = plans.load(Path(said.plan)).times(said.times)
    except plans.PlanError as error:
        _log.error("%s", error)
        environment.process_exit_code = WRONG_USE
        return
    RUN.arguments = arguments
    RUN.began_s = time.monotonic()


def _stop(environment: Environment, **_: Any) -> None:
    made = RUN.report(whole=True)
    if made is None:
        return
    said: Any = environment.parsed_options
    default = ROOT / "build" / "loadtest" / f"locust-{made.plan.name}"
    folder = Path(said.report) if said.report else default
    for path in write(made, folder):
        _log.info("wrote %s", path)
    _log.info("%s", summary(made))
    for check in made.checks:
        word = "passed" if check.passed else "FAILED"
        _log.info("%s: %s %g, found %.4g", word, check.what, check.wanted, check.found)
    environment.process_exit_code = 0 if made.passed and not RUN.failed else 1


_hooks: Any = events  # its methods have no types
_hooks.init_command_line_parser.add_listener(_options)
_hooks.init.add_listener(_init)
_hooks.test_start.add_listener(_start)
_hooks.test_stop.add_listener(_stop)
