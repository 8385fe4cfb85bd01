"""What a row is played on: requests with classes, engines with noise, a cloud with its luck.

A seed decides labels, step noise, the cloud's latencies and, where they are asked for, who is
foreign and what a heavy tail makes of the trace. Each is drawn by a stream of its own, so that no
policy's choice changes what another meets.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from forebay.errors import SettingsError
from forebay.lab.engine_sim import Job, SimulatedEngine
from forebay.lab.stage import Stage
from forebay.lab.step_time import LinearLaw
from forebay.lab.surroundings import Cloud, Promise, Turn
from forebay.lab.traces import heavy_tailed
from forebay.policy.admission.model import Coefficients

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forebay.lab.scenario import Disturbance, Scenario
    from forebay.lab.step_time import Noise, StepLaw
    from forebay.lab.traces import Traced

_LABELS, _ENGINE, _CLOUD, _ROUTERS, _SATURATED, _FOREIGN = range(6)


@dataclass(frozen=True, slots=True)
class Setting:
    """One scenario on one trace with one engine law and, maybe, one disturbance."""

    scenario: Scenario
    trace: Sequence[Traced]
    law: StepLaw
    noise: Noise
    disturbance: Disturbance

    @property
    def promises(self) -> list[Promise]:
        """Return the classes as they are judged, in the scenario's order."""
        return [
            Promise(name, _s(one.ttft_ms), _s(one.tpot_ms), _s(one.e2e_ms), one.spill)
            for name, one in self.scenario.classes.items()
        ]

    def jobs(self, span_s: float, seed: int) -> list[Job]:
        """Return the requests, arriving over `span_s`, with classes and tails drawn by seed.

        All may have answers of the same most tokens, and longer ones are cut there: a policy is
        told nothing of a true length.
        """
        wrong, trace = self.disturbance, self.trace
        if wrong.heavy_tail:
            trace = heavy_tailed(trace, seed)
        stretch = span_s / trace[-1].at_s
        most = wrong.max_tokens or self.scenario.max_tokens
        foreign = self._foreign(seed)
        return [
            Job(
                number,
                label,
                one.at_s * stretch,
                one.input_tokens,
                min(one.output_tokens, most),
                most,
                foreign=number in foreign,
            )
            for number, (one, label) in enumerate(zip(trace, self._labels(seed), strict=True))
        ]

    def _foreign(self, seed: int) -> set[int]:
        """Return the numbers of the requests that are not ours; one at least stays ours."""
        count = int(self.disturbance.foreign * len(self.trace))
        mixed = np.random.default_rng((seed, _FOREIGN)).permutation(len(self.trace))
        return set(mixed[:count].tolist())

    def _labels(self, seed: int) -> list[int]:
        """Return each request's class, dealt by the shares of its mix."""
        names = list(self.scenario.classes)
        draws = np.random.default_rng((seed, _LABELS)).random(len(self.trace)).tolist()
        dealt = {
            mix: (np.cumsum(list(shares.values())).tolist(), [names.index(one) for one in shares])
            for mix, shares in self.scenario.mixes.items()
        }
        labels = []
        for one, draw in zip(self.trace, draws, strict=True):
            upto, among = dealt[one.mix]
            labels.append(among[min(bisect_right(upto, draw), len(among) - 1)])
        return labels

    def stage(self, span_s: float, seed: int) -> Stage:
        """Return an empty fleet and a cloud; what is to go wrong is on its calendar."""
        spec = self.scenario.cloud
        rng = np.random.default_rng((seed, _CLOUD))
        count = len(self.trace)
        ttft_s = spec.ttft_median_ms / 1e3 * np.exp(spec.ttft_sigma * rng.standard_normal(count))
        ttft_s[rng.random(count) < spec.slow_share] += spec.slow_ms / 1e3
        cloud = Cloud(
            ttft_s.tolist(),
            spec.tpot_ms / 1e3,
            spec.input_usd_per_million / 1e6,
            spec.output_usd_per_million / 1e6,
        )
        wrong = self.disturbance
        turns = []
        if wrong.turns:
            at_s = wrong.start * span_s
            turns.append(Turn(at_s, wrong.engine_factor, wrong.dies, wrong.price_factor))
        scrape_ms = wrong.scrape_ms or self.scenario.fleet.scrape_ms
        return Stage(
            self.engines(seed), cloud, self.promises, scrape_s=scrape_ms / 1e3, turns=turns
        )

    def engines(self, seed: int) -> list[SimulatedEngine]:
        """Return the fleet, each replica with noise of its own."""
        fleet = self.scenario.fleet
        return [
            SimulatedEngine(fleet.limits(), self.law, self.noise.factors((seed, _ENGINE, replica)))
            for replica in range(fleet.replicas)
        ]

    def routers(self, seed: int) -> list[int]:
        """Return which router each request reaches; none for a single one."""
        count = self.disturbance.routers
        if count == 1:
            return []
        rng = np.random.default_rng((seed, _ROUTERS))
        drawn: list[int] = rng.integers(0, count, len(self.trace)).tolist()
        return drawn

    def manifest(self) -> Coefficients:
        """Return what a benchmark of the engine would have told: the linear law nearest to it.

        Least squares over a grid of batches, contexts and prompt tokens that a replica can hold,
        where the law is no such line itself.
        """
        if isinstance(self.law, LinearLaw):
            return self.law.coefficients
        limits, block = self.scenario.fleet.limits(), self.law.block_tokens
        points, seconds = [], []
        most = max(2.0, limits.max_batch / 2)  # of one number of streams no slope could be told
        for streams in np.linspace(1, most, 9).astype(int).tolist():
            for context in (0.1, 0.25, 0.5, 0.75):
                for prefill in (0.0, 0.25, 0.5, 1.0):
                    kv = int(context * limits.kv_tokens * 2 * streams / limits.max_batch)
                    tokens = int(prefill * (limits.step_tokens - streams))
                    points.append((1.0, streams, kv, tokens))
                    seconds.append(self.law.step_s(streams, -(-kv // block) * block, tokens))
        found = np.linalg.lstsq(np.array(points), np.array(seconds), rcond=None)[0]
        return Coefficients(*(max(float(one), 1e-9) for one in found))

    def saturated_rps(self) -> float:
        """Return the fleet's throughput when requests never run out: what 1x is.

        All requests wait from the start, dealt to replicas in turn in the trace's order, each
        engine FIFO: their number, divided by when the last one ends. No class and no cloud
        matters to it. A heavy tail is drawn once for it, not by seed.
        """
        last_s, served = 0.0, 0
        jobs = self.jobs(1.0, _SATURATED)
        for replica, engine in enumerate(self.engines(_SATURATED)):
            engine.waiting.extend(
                job for job in jobs[replica :: self.scenario.fleet.replicas] if engine.fits(job)
            )
            served += len(engine.waiting)
            engine.begin(0.0)
            while engine.next_s < inf:
                last_s = max(last_s, engine.next_s)
                engine.end_segment()
        if not served:
            raise SettingsError("no request of the trace fits a replica's KV cache")
        return served / last_s


def _s(ms: float | None) -> float:
    return inf if ms is None else ms / 1e3
