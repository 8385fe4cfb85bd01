"""What admission knows, as gauges that are read when they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily as Gauge
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forebay.policy.admission.breakers import CloudBreakers
    from forebay.policy.admission.replica import Replica
    from forebay.policy.admission.state import State
    from forebay.ports import Clock

SCRAPED = ("active", "waiting", "scheduled", "max_requests", "kv_used")


class AdmissionGauges(Collector):
    """Queues, engines, what was learnt of their speed, and how far classes trust it."""

    def __init__(self, state: State, clock: Clock, breakers: CloudBreakers | None = None) -> None:
        self._state = state
        self._breakers = breakers
        self._clock = clock

    def collect(self) -> Iterator[Gauge]:
        """Yield every gauge."""
        state = self._state
        own = Gauge("forebay_inflight", "Own requests in flight", labels=["target"])
        serves = Gauge(
            "forebay_serves", "Which engine serves a target", labels=["engine", "target"]
        )
        for target, place in state.places.items():
            own.add_metric([target], state.by_target[target])
            pool = state.pool(target)
            for name in pool.replicas if pool else (f"cloud/{place.target}",):
                serves.add_metric([name, target], 1)
        waiting = Gauge("forebay_waiting", "Requests in the router's queue", labels=["pool"])
        for name, pool in state.pools.items():
            waiting.add_metric([name], len(pool.queue))
        yield from (own, serves, waiting)
        yield from self._engines([r for p in state.pools.values() for r in p.replicas.values()])
        yield from self._classes()

    def _engines(self, replicas: list[Replica]) -> Iterator[Gauge]:
        now_s = self._clock.now_s()
        said = Gauge(
            "forebay_engine", "What an engine's metrics said last", labels=["engine", "what"]
        )
        health = Gauge(
            "forebay_engine_state",
            "Where an engine's circuit stands, or that it is drained",
            labels=["engine", "state"],
        )
        own = Gauge("forebay_engine_inflight", "Own requests in an engine", labels=["engine"])
        step = Gauge(
            "forebay_step_seconds",
            "Learnt seconds of a step: fixed, and for each stream, context and prompt token",
            labels=["engine", "per"],
        )
        for replica in replicas:
            name, scrape, c = replica.spec.name, replica.scrape, replica.coefficients
            drains, circuit = replica.health.draining, replica.health.state(now_s)
            health.add_metric([name, "draining" if drains else circuit], 1)
            own.add_metric([name], replica.own)
            for per, seconds in zip(
                ("step", "stream", "context_token", "prompt_token"),
                (c.a_s, c.b_s, c.c_s, c.d_s),
                strict=True,
            ):
                step.add_metric([name, per], seconds)
            if scrape is not None:
                for what in SCRAPED:
                    said.add_metric([name, what], getattr(scrape, what))
                said.add_metric([name, "foreign"], replica.foreign)
        yield from (said, health, own, step)

    def _classes(self) -> Iterator[Gauge]:
        now_s = self._clock.now_s()
        trust = Gauge(
            "forebay_margin",
            "What predictions are multiplied by before they are held against an SLO",
            labels=["route", "slo"],
        )
        for route, learnt in self._state.classes.items():
            trust.add_metric([route, "ttft"], learnt.ttft.factor(now_s))
            trust.add_metric([route, "rate"], learnt.rate.factor(now_s))
        yield trust
        cloud = Gauge("forebay_cloud_p99_seconds", "Tracked latency", labels=["target", "of"])
        for target, latency in self._state.exits.clouds.items():
            cloud.add_metric([target, "ttft"], latency.ttft_s())
            cloud.add_metric([target, "tpot"], latency.tpot_s())
        yield cloud
        if self._breakers is not None:
            stands = Gauge(
                "forebay_cloud_state", "Where a cloud's circuit stands", labels=["target", "state"]
            )
            for target in self._state.exits.clouds:
                stands.add_metric([target, self._breakers.health(target).state(now_s)], 1)
            full = Gauge(
                "forebay_cloud_full", "1 where a cloud said so and is left alone", labels=["target"]
            )
            for target in self._state.exits.clouds:
                full.add_metric([target], not self._breakers.room(target).takes(now_s))
            yield from (stands, full)
