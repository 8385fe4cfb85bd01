"""The stage: what its scrapes say, what a dead replica does, and who is foreign."""

from math import inf

import pytest

from forebay.lab.dispatchers import Fifo, RoundRobin
from forebay.lab.engine_sim import EngineLimits, Job, SimulatedEngine
from forebay.lab.stage import DEAD_S, Stage
from forebay.lab.step_time import LinearLaw, Noise
from forebay.lab.surroundings import Cloud, Promise, Turn
from forebay.policy.admission.model import Coefficients

C = Coefficients(0.0133, 6.3e-5, 3.41e-7, 6.86e-5)
LIMITS = EngineLimits(kv_tokens=4000, max_batch=8, step_tokens=64)
CHAT = Promise("chat", 10.0, 1.0, inf, may_spill=True)


def stage(replicas=1, turns=(), scrape_s=inf):
    engines = [
        SimulatedEngine(LIMITS, LinearLaw(C), Noise().factors((1,))) for _ in range(replicas)
    ]
    cloud = Cloud((0.3,) * 64, 0.02, 1e-6, 1e-6)
    return Stage(engines, cloud, [CHAT], turns=turns, scrape_s=scrape_s)


def jobs(*drawn, foreign=()):
    return [
        Job(number, 0, at, prompt, output, output, foreign=number in foreign)
        for number, (at, prompt, output) in enumerate(drawn)
    ]


class Stubborn(Fifo):
    """Sends every request to replica 0 until one has failed so often; notes when each did."""

    def __init__(self, replicas, tries=1):
        super().__init__(replicas)
        self.tries, self.failures, self.seen = tries, [], []

    def arrived(self, stage, job):
        self.place(stage, job, 0 if len(self.failures) < self.tries else 1)

    def failed(self, stage, job):
        self.failures.append(stage.now_s)
        super().failed(stage, job)

    def died(self, stage, replica):
        """Know nothing."""

    def scraped(self, stage, replica, scrape):
        self.seen.append(scrape)


@pytest.mark.parametrize(("took_s", "kept"), [(59.0, True), (61.0, False)])
def test_an_answer_of_one_token_has_no_pace(took_s, kept):
    (job,) = jobs((0.0, 10, 1))
    job.first_s = job.end_s = took_s
    assert Promise("batch", inf, inf, 60.0, may_spill=True).kept(job) == kept


def test_prompts_that_the_step_takes_nothing_of_wait_though_they_have_a_place():
    played = stage(scrape_s=0.001)
    router = Stubborn(1)
    played.run(jobs(*[(0.0005, 640, 4)] * 8), [router])
    first = next(one for one in router.seen if one.active)
    assert (first.active, first.scheduled, first.waiting) == (8, 1, 7)
    assert max(one.waiting for one in router.seen) == 7
    for one in router.seen:
        assert one.waiting == one.active - one.scheduled
        assert one.generating <= one.scheduled <= LIMITS.max_batch


@pytest.mark.parametrize("tries", [1, 4])
def test_a_call_to_a_dead_replica_fails_and_may_be_made_elsewhere(tries):
    played = stage(2, [Turn(1.0, dies=1)])
    router, offered = Stubborn(2, tries), jobs((2.0, 100, 5), (3.0, 100, 5))
    played.run(offered, [router])
    assert router.failures == pytest.approx([2.0 + DEAD_S * (n + 1) for n in range(tries)])
    assert [job.ended for job in offered] == ["served", "served"]
    assert [job.where for job in offered] == [1, 1]
    assert offered[0].first_s > 2.0 + tries * DEAD_S


def test_who_is_given_up_makes_room_at_once_for_who_stands_behind():
    moments = []

    class Impatient(Fifo):
        def woken(self, stage):
            stage.give_up(offered[1])

        def arrived(self, stage, job):
            super().arrived(stage, job)
            stage.wake(self, 0.5)

        def stepped(self, stage, replica):
            moments.append(stage.now_s)

    played, offered = stage(), jobs((0.0, 60, 100), (0.1, 3950, 20), (0.2, 10, 2))
    played.run(offered, [Impatient(1)])
    assert [job.ended for job in offered] == ["served", "failed", "served"]
    assert 0.5 < offered[2].first_s < 0.5 + 3 * C.a_s
    assert moments == sorted(moments), "and time does not step back"


def test_foreign_requests_pass_the_router_and_are_no_figure_of_its():
    played = stage(2)
    router, direct = Fifo(2), RoundRobin(2)
    offered = jobs(*[(0.1 * n, 100, 5) for n in range(6)], (0.7, 5000, 5), foreign=(1, 3, 4, 6))
    met = []
    router.first_token = lambda _, job: met.append(job.number)
    played.run(offered, [router, direct])
    assert met == [0, 2, 5]
    assert [job.where for job in offered if job.foreign] == [1, 0, 1, 0]
    assert (offered[6].ended, played.refused, played.missed) == ("refused", 0, 0)
    assert played.charged_usd(offered[6]) == 0.0
