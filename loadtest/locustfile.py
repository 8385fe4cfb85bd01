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
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

# Locust patches the standard library; what follows must be imported after it.
import gevent  # type: ignore[import-untyped]  # noqa: E402
from locust import LoadTestShape, User, events, task  # noqa: E402
from locust.runners import LocalRunner  # noqa: E402

from loadtest import plan as plans  # noqa: E402
from loadtest.locust_run import WRONG_USE, Run  # noqa: E402
from loadtest.outcome import of_json  # noqa: E402
from loadtest.pages import found, html, summary, write  # noqa: E402

if TYPE_CHECKING:
    from locust.env import Environment

    from loadtest.outcome import Outcome

LEAD_S = 0.5
"""From the moment at which all generators are ready to the run's zero."""
GRACE_S = 5.0
"""How long a generator that is told to end has to say its last line."""
_log = logging.getLogger("loadtest")


class MissedSLO(Exception):
    """A request that was answered too late."""


class Unanswered(Exception):
    """A request that was refused, broke, or was cut off."""


RUN = Run()


def _doors(runner: Any) -> set[str]:
    """Return the doors of a runner's users."""
    return {getattr(one, "door", "") for one in runner.user_classes}


class Door(User):
    """One door: runs the plan's requests for it, all of them, from one process."""

    abstract = True
    fixed_count = 1
    door = ""

    @task
    def offer(self) -> None:
        """Read the generator's outcomes until it ends, then wait for the run's end."""
        if self.door in RUN.generators or RUN.plan is None or RUN.stopped_s is not None:
            time.sleep(0.5)  # gevent's: other greenlets go on
            return
        command = [sys.executable, "-m", "loadtest", "generate", *RUN.arguments]
        with TemporaryFile("w+") as complaints:
            generator = subprocess.Popen(  # noqa: S603 - our own module
                [*command, "--zero-told", "--only", self.door],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
                cwd=ROOT,
                process_group=0,  # Ctrl-C is for Locust, which ends it when it has stopped
            )
            RUN.generators[self.door] = generator
            try:
                assert generator.stdout is not None
                for line in generator.stdout:
                    self._take(json.loads(line))
                generator.wait()
            finally:
                if generator.poll() is None:
                    generator.kill()
                status = generator.wait()
                complaints.seek(0)
                RUN.close(self.door, status, complaints.read())

    def _begin(self) -> None:
        """Give this door's generator the zero of all, once they are all ready or have ended."""
        RUN.ready.add(self.door)
        while RUN.zero_s is None and RUN.stopped_s is None:
            if _doors(self.environment.runner) <= RUN.ready | RUN.ended:
                RUN.zero_s = time.monotonic() + LEAD_S
            else:
                time.sleep(0.05)
        stdin = RUN.generators[self.door].stdin
        assert stdin is not None
        with suppress(OSError):  # it has died; its last line and its status will be missed
            if RUN.stopped_s is None:
                stdin.write(f"{RUN.zero_s}\n")
            stdin.close()

    def _take(self, said: dict[str, Any]) -> None:
        if "ready" in said:
            self._begin()
            return
        if "loop_late_ms" in said:
            RUN.told.add(self.door)
            RUN.loop_late_ms[self.door] = said["loop_late_ms"]
            RUN.busy = max(RUN.busy or 0.0, said["busy"])
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
    if outcome.ended == "served":
        return Unanswered(f"served: {missed}")
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
        doors = _doors(self.runner)
        going = RUN.waiting or RUN.stopped_s is not None  # who stops it ends it
        if not going and (RUN.plan is None or doors <= RUN.ended):
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
    said: Any = environment.parsed_options
    if environment.runner is not None and said is not None and said.headless:
        # Locust itself listens to it only after a headless run.
        gevent.signal_handler(signal.SIGTERM, environment.runner.quit)
    if environment.web_ui is not None and environment.web_ui.app is not None:
        environment.web_ui.app.add_url_rule("/slo", "slo", _page)


def _page() -> str:
    ended = bool(RUN.generators) and RUN.generators.keys() <= RUN.ended
    # A request counts only once its own time is over: before that, to be unanswered is no miss.
    made = RUN.report(RUN.stopped_s if ended else max(RUN.now_s() - 5.0, 1.0))
    if made is None:
        return "<p>No run yet. Start one, then come back; this page is the report so far.</p>"
    return html(made, live=not ended)


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
        plan = plans.load(Path(said.plan)).times(said.times)
        RUN.plan = plan.all_through(said.all_through) if said.all_through else plan
    except plans.PlanError as error:
        _log.error("%s", error)
        environment.process_exit_code = WRONG_USE
        return
    RUN.arguments = arguments


def _stopping(environment: Environment, **_: Any) -> None:  # noqa: ARG001 - Locust passes it
    """End what still runs: each generator cuts off what is open and says its last line."""
    going = [one for one in RUN.generators.values() if one.poll() is None]
    if not going or RUN.stopped_s is not None:
        return
    RUN.stopped_s = RUN.now_s()
    for end in (subprocess.Popen.terminate, subprocess.Popen.kill):
        for one in going:
            end(one)
        until_s = time.monotonic() + GRACE_S
        while not RUN.generators.keys() <= RUN.ended and time.monotonic() < until_s:
            time.sleep(0.05)


def _quitting(environment: Environment, **_: Any) -> None:
    """Stop before Locust asks for its exit status, which the report decides."""
    if environment.runner is not None:
        environment.runner.stop()


def _stop(environment: Environment, **_: Any) -> None:
    made = RUN.report(RUN.stopped_s)
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
        _log.info("%s: %s %g, found %s", word, check.what, check.wanted, found(check))
    environment.process_exit_code = WRONG_USE if RUN.wrong_use else int(not made.passed)


_hooks: Any = events  # its methods have no types
_hooks.init_command_line_parser.add_listener(_options)
_hooks.init.add_listener(_init)
_hooks.test_start.add_listener(_start)
_hooks.test_stopping.add_listener(_stopping)
_hooks.test_stop.add_listener(_stop)
_hooks.quitting.add_listener(_quitting)
