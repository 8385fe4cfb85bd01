"""In-flight batching with a fake engine: who joins when, who is told what, what is published."""

import threading
import time
from types import SimpleNamespace

import engine_modules
import numpy as np
import pytest

batching = engine_modules.of("tensorrt_llm", "batcher")
generation = engine_modules.of("tensorrt_llm", "generation")
inputs = engine_modules.of("tensorrt_llm", "inputs")
replies = engine_modules.of("tensorrt_llm", "replies")
stepping = engine_modules.of("tensorrt_llm", "stepping")

LIMITS = generation.Limits(
    max_batch_size=2,
    max_queue_size=2,
    max_input_len=99,
    max_seq_len=1000,
    vocab_size=1000,
    tokens_per_block=32,
    kv_blocks=64,
    end_id=2,
)


class FakeHandle:
    def __init__(self, asked):
        self.asked, self.made, self.read, self.cancelled = asked, [], 0, False

    def decoded(self):
        while self.read < len(self.made):
            self.read += 1
            last = self.read == self.asked.max_tokens
            yield stepping.Decoded(0, [self.made[self.read - 1]], [-0.5], last)

    def over(self):
        return self.cancelled or len(self.made) == self.asked.max_tokens

    def cancel(self):
        self.cancelled = True


class FakeEngine:
    """Decodes 10, 11, 12 … for each request; steps when the test lets it."""

    def __init__(self):
        self.handles, self.may_step, self.broken = [], threading.Semaphore(0), False

    def add(self, key, asked, guide):
        if guide == "refused":
            raise RuntimeError("bad parameters")
        self.handles.append(FakeHandle(asked))
        return self.handles[-1]

    def step(self):
        self.may_step.acquire(timeout=5)
        if self.broken:
            raise RuntimeError("already in scheduling phase")
        self.handles = [handle for handle in self.handles if not handle.over()]
        for handle in self.handles:
            handle.made.append(10 + len(handle.made))

    def busy(self):
        return bool([handle for handle in self.handles if not handle.over()])

    def scheduled(self):
        return len(self.handles)

    def used_blocks(self):
        return len(self.handles)


class FakeReply:
    def __init__(self):
        self.sent, self.error, self.open, self.gone = [], None, True, False

    def cancelled(self):
        return self.gone

    def tokens(self, asked, sequence, times, *, upto, last):
        assert self.open
        self.sent.append(sequence.tokens[sequence.sent : upto])
        sequence.sent = upto
        self.open = not last

    def fail(self, fault, sentence):
        self.error, self.open = (fault, sentence), False

    def end(self):
        self.open = False


class FakeGauges:
    def __init__(self):
        self.loads, self.lengths = [], []

    def fix(self, **said):
        self.fixed = said

    def publish(self, load, blocks):
        self.loads.append(load)

    def finished(self, prompt, answer):
        self.lengths.append((prompt, answer))


@pytest.fixture
def house():
    engines, said, gauges = [], [], FakeGauges()

    def load():
        engines.append(FakeEngine())
        return engines[-1]

    batcher = batching.Batcher(
        load,
        LIMITS,
        gauges,
        report=said.append,
        die=lambda: said.append("died"),
        cancellation_period_s=0.0,
    )
    yield SimpleNamespace(batcher=batcher, engines=engines, gauges=gauges, said=said)
    for engine in engines:
        engine.may_step.release(1000)
    batcher.close(5)


def job(tokens=3, name="", **more):
    sent = {
        "input_ids": np.array([[5, 6, 7]]),
        "input_lengths": np.array([3]),
        "request_output_len": np.array([tokens]),
        "streaming": np.array([True]),
    } | {key: np.asarray(value) for key, value in more.items()}
    asked = inputs.parse(sent, LIMITS, prompt_in_output=False)
    return batching.Job(name, asked, FakeReply(), replies.Times(1))


def within(condition, seconds=5.0):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.001)
    assert condition()


def step(house, times=1):
    house.engines[-1].may_step.release(times)


def test_each_token_is_sent_by_itself_and_the_last_closes(house):
    one = job(3)
    house.batcher.submit(one)
    step(house, 3)
    within(lambda: not one.reply.open)
    assert one.reply.sent == [[10], [11], [12]]
    within(lambda: house.gauges.lengths == [(3, 3)])


def test_a_newcomer_joins_between_steps(house):
    first, second = job(9), job(2)
    house.batcher.submit(first)
    step(house, 2)
    within(lambda: len(first.reply.sent) == 2)
    house.batcher.submit(second)
    step(house, 3)
    within(lambda: not second.reply.open)
    assert first.reply.open
    assert second.reply.sent == [[10], [11]]


def test_beyond_the_batch_wait_and_beyond_the_queue_are_refused(house):
    jobs = [job(5) for _ in range(5)]
    house.batcher.submit(jobs[0])
    within(lambda: len(house.engines[-1].handles) == 1)
    for one in jobs[1:]:
        house.batcher.submit(one)
    step(house, 2)
    within(lambda: jobs[-1].reply.error is not None)
    fault, sentence = jobs[-1].reply.error
    assert fault is replies.Fault.UNAVAILABLE
    assert "queue is full" in sentence
    step(house, 20)
    within(lambda: not any(one.reply.open for one in jobs))
    assert [len(one.reply.sent) for one in jobs[:4]] == [5, 5, 5, 5]


def test_a_request_waits_until_its_longest_answer_fits_the_cache(house):
    large, second = job(900), job(900)
    third = job(900)
    limit = LIMITS.kv_blocks // large.asked.kv_blocks
    assert limit == 2
    for one in (large, second, third):
        house.batcher.submit(one)
    step(house, 3)
    within(lambda: len(large.reply.sent) >= 1)
    assert third.running is None


def test_a_gone_client_is_dropped_without_a_response(house):
    one = job(50)
    house.batcher.submit(one)
    step(house, 1)
    within(lambda: one.reply.sent)
    one.reply.gone = True
    step(house, 2)
    within(lambda: not one.reply.open)
    assert one.running.cancelled
    assert one.reply.error is None
    within(lambda: house.gauges.loads[-1].active == 0)


def test_a_stop_request_ends_the_one_it_names(house):
    one, other, reply = job(50, name="a"), job(50, name="b"), FakeReply()
    for each in (one, other):
        house.batcher.submit(each)
    step(house, 2)
    within(lambda: other.reply.sent)
    house.batcher.submit(batching.Stopping("a", reply))
    step(house, 1)
    within(lambda: not one.reply.open)
    assert not reply.open
    assert other.reply.open


def test_stop_words_end_and_cancel(house):
    one = job(50, stop_words_list=[[[11, 12], [2, -1]]])
    house.batcher.submit(one)
    step(house, 4)
    within(lambda: not one.reply.open)
    assert one.reply.sent == [[10], []]
    assert one.running.cancelled


def test_the_end_token_is_not_sent(house):
    one = job(3, end_id=[12])
    house.batcher.submit(one)
    step(house, 3)
    within(lambda: not one.reply.open)
    assert one.reply.sent == [[10], [11], []]


def test_a_refusal_by_the_engine_concerns_one_request(house):
    bad, good = job(2), job(2)
    bad.guide = "refused"
    house.batcher.submit(bad)
    house.batcher.submit(good)
    step(house, 2)
    within(lambda: not good.reply.open)
    assert bad.reply.error[0] is replies.Fault.INVALID
    assert len(house.engines) == 1


def test_a_broken_engine_is_replaced_and_those_inside_are_told(house):
    lost, waiting = [job(9), job(9)], job(2)
    for one in (*lost, waiting):
        house.batcher.submit(one)
    step(house, 1)
    within(lambda: lost[1].reply.sent)
    house.engines[0].broken = True
    step(house, 1)
    within(lambda: len(house.engines) == 2)
    for one in lost:
        assert one.reply.error[0] is replies.Fault.UNAVAILABLE
        assert "restarting" in one.reply.error[1]
    step(house, 2)
    within(lambda: not waiting.reply.open)
    assert waiting.reply.error is None
    assert waiting.reply.sent == [[10], [11]], "who was outside is served by the new one"
    assert "being rebuilt" in house.said[0]


def test_unloading_tells_everyone(house):
    one = job(50)
    house.batcher.submit(one)
    step(house, 1)
    within(lambda: one.reply.sent)
    step(house, 5)
    house.batcher.close(5)
    assert "unloaded" in one.reply.error[1]


def test_gauges_follow_every_step_and_end_idle(house):
    one = job(3)
    house.batcher.submit(one)
    step(house, 3)
    within(lambda: not one.reply.open)
    within(lambda: house.gauges.loads[-1].active == 0)
    last = house.gauges.loads[-1]
    assert (last.scheduled, last.context, last.used_blocks, last.iteration) == (0, 0, 0, 3)
    assert any(load.active == 1 and load.scheduled == 1 for load in house.gauges.loads)
