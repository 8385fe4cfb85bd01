"""A sweep's folder whose points an engine of `stepped` has answered."""

import json

import yaml
from click.testing import CliRunner
from loadtest import plan as plans
from loadtest.__main__ import main
from loadtest.fitted_record import points
from loadtest.outcome import to_json
from loadtest.report import report
from loadtest.stacks import LEARNT
from loadtest.sweep import WARM_UP, plans_at
from loadtest.sweep_plan import load as load_sweep
from loadtest.work import schedule
from stepped import Asked, answered

CAPACITY_RPS = 1.5
PROMPT, TEMPLATE = 60, 20
ENGINE = {
    "kv_blocks": 2048,
    "tokens_per_block": 32,
    "max_batch_size": 32,
    "max_num_tokens": 128,
    "max_queue_size": 128,
    "step_s": [0.009, 0.0016, 1e-06, 0.0007],
}
PLAN = {
    "name": "test",
    "duration_s": 90,
    "drain_s": 60,
    "arrivals": {"kind": "poisson", "rate_rps": 1},
    "classes": [
        {
            "name": "chat",
            "share": 3,
            "slo": {"ttft_ms": 1000, "tpot_ms": 150, "attainment": 0.99},
            "labels": {"task": "chat"},
            "prompt_tokens": PROMPT,
            "output_tokens": [8, 40],
        },
        {
            "name": "private",
            "share": 1,
            "slo": {"ttft_ms": 2000, "attainment": 0.99},
            "labels": {"task": "private"},
            "prompt_tokens": PROMPT,
            "output_tokens": [8, 40],
        },
    ],
}
SWEEP = {
    "name": "test",
    "loads": [0.5, 1, 1.5],
    "repetitions": 1,
    "point_s": 90,
    "warmup_s": 6,
    "slo_rps": 1.5,
    "policies": [
        {"name": "fifo", "policy": "loadtest/policies/fifo.yaml", "cloud": False},
        {"name": "cap", "policy": "loadtest/policies/cap.yaml", "set": {"cap": 4}},
    ],
    "capacity": {"policy": "fifo"},
}


class Folder:
    """A sweep's folder whose points an engine of `stepped` has answered."""

    def __init__(self, home):
        self.home = home
        self.sweep = home / "sweep.yaml"
        self.engine = home / "engine.json"
        plan = home / "plan.yaml"
        plan.write_text(yaml.safe_dump(PLAN))
        self.sweep.write_text(yaml.safe_dump({**SWEEP, "plan": str(plan)}))
        self.engine.write_text(json.dumps(ENGINE))
        capacity = {"1": {"requests_per_s": CAPACITY_RPS}}
        (home / "capacity.json").write_text(json.dumps(capacity))
        self.plan = plans.load(plan)

    def learnt(self, policy, step_s, classes=None, load=0.5):
        """Write what the router had learnt before a point."""
        engine = {"step_s": step_s, "lag_s": 0.0, "ttft_spread_s": 0.0, "tpot_spread": 0.0}
        said = {"engines": {"b": engine}, "classes": classes or {}}
        place = self.home / f"{policy}-{load:g}x-1" / "try-1"
        (place / LEARNT).write_text(json.dumps(said))

    def ran(self, load, policy="fifo", change=list, pace=lambda _: 1.0, *, whole=True, **said):
        """Write one point, its outcomes and its row changed as told; return its attainment."""
        key = f"{policy}-{load:g}x-1"
        plan = self.plan.changed(name=key, seed=1, duration_s=90, warmup_s=6)
        plan = plans_at(plan, load * CAPACITY_RPS)
        tokens = PROMPT + TEMPLATE
        asked = [Asked(j.number, j.at_s, tokens, j.max_tokens, j.klass) for j in schedule(plan)]
        every = change(answered(asked, pace=pace))
        made = report(plan, every)
        place = self.home / key / "try-1"
        place.mkdir(parents=True)
        (place / "outcomes.jsonl").write_text(lines(made.outcomes))
        if whole:
            (place / WARM_UP).write_text(lines(one for one in every if one.scheduled_s < 6))
        body = made.body
        classes = {name: one["attainment"] for name, one in body["classes"].items()}
        row = {
            "point": key,
            "policy": policy,
            "load": load,
            "repetition": 1,
            "try": 1,
            "void": [],
            "offered": body["offered"],
            "attainment": body["attainment"],
            "attainment_by_class": classes,
            "spilled": body["spilled"],
            "refused": body["ended"].get("refused", 0),
            "failed": 0,
            **said,
        }
        with (self.home / "rows.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        return row["attainment"]

    def points(self):
        return points(load_sweep(self.sweep), self.home, self.engine)

    def command(self, *more):
        words = ["fitted", str(self.home), "--sweep", str(self.sweep)]
        words += ["--engine", str(self.engine), "--draws", "2", *more]
        return CliRunner().invoke(main, words)


def lines(outcomes):
    return "".join(json.dumps(to_json(one)) + "\n" for one in outcomes)
