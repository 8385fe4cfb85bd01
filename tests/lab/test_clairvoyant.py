"""The clairvoyant router: what it finds room in, and when."""

from math import inf

import pytest
from lab.small import setting

from forebay.lab import clairvoyant, rows
from forebay.lab.engine_sim import Job
from forebay.lab.shelf import Shelf
from forebay.lab.stage import Stage


class Alone(Stage):
    """A stage whose one router is asked by hand, at a moment inside the engines' segments."""

    def __init__(self, streams, prompts):
        made = setting(calm=True).stage(100.0, 1)
        super().__init__(made.engines, made.cloud, made.promises)
        self.router = clairvoyant.Hindsight([False] * 300)
        self._routers, self._wakes = [self.router], [inf]
        for number, (replica, prompt, output) in enumerate(streams):
            self.submit(Job(100 + number, 0, 0.0, prompt, output, output), replica)
        for engine in self.engines:
            while engine.taking_in:
                self.now_s = max(self.now_s, engine.next_s + 0.001)
                engine.end_segment()
        for number, (replica, prompt) in enumerate(prompts):
            self.submit(Job(200 + number, 0, self.now_s, prompt, 5, 5), replica)

    def asked(self, prompt, *, waited_s=0.0):
        """Return where the router sends a request that came so long ago; None if it waits."""
        job = Job(0, 0, self.now_s - waited_s, prompt, 10, 10)
        self.router.arrived(self, job)
        return job.where


@pytest.mark.parametrize(
    ("why", "streams", "prompts", "prompt", "expected"),
    [
        ("both are idle", [], [], 10, 0),
        ("fewer streams, and no prompt anywhere", [(0, 9, 99), (0, 9, 99), (1, 9, 99)], [], 9, 1),
        ("fewer prompts come before more streams", [(1, 9, 99)], [(0, 300)], 9, 1),
        ("no room in the idlest, but in another", [(0, 9, 19_000)], [(1, 300)], 1500, 1),
        ("no room anywhere", [(0, 9, 19_000), (1, 9, 19_000)], [], 1500, None),
        ("a whole step of prompts before it everywhere", [], [(0, 900), (1, 900)], 9, None),
        ("too late in all", [], [], 19_000, None),
    ],
)
def test_it_is_the_idlest_engine_of_all_that_have_room_in_time(
    why, streams, prompts, prompt, expected
):
    assert Alone(streams, prompts).asked(prompt) == expected, why


def test_a_prompt_may_begin_at_the_next_step_of_those_that_are_added_up():
    stage = Alone([(0, 9, 150), (1, 9, 150)], [])
    assert min(engine.next_s for engine in stage.engines) > stage.now_s + 0.5
    assert stage.asked(200, waited_s=0.7) == 0, "a second is promised"
    assert Alone([], []).asked(200, waited_s=0.99) == -1, "it comes too late, and leaves"


def test_who_knows_all_lengths_reserves_no_more_than_an_answer_has(tmp_path, monkeypatch):
    met = []

    class Looks(clairvoyant.Hindsight):
        def arrived(self, stage, job):
            met.append(job.max_tokens == job.output_tokens)
            super().arrived(stage, job)

    monkeypatch.setattr(clairvoyant, "Hindsight", Looks)
    made = rows.Rows(setting(), Shelf(tmp_path), lp_rounds=100)
    made.clairvoyant_usd(1.0, 1, 0)
    assert met
    assert all(met)
