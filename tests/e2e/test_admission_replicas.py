"""Two real Tritons: routers that share them out, one that dies, and a list edited while serving."""

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from routers import ENGINE, serving, until

from forebay.edges.ownership import BEAT_S, LEASE_S
from forebay.edges.replicas.file import PERIOD_S

AT_ONCE, SHORT = 12, 8
RUNNING, LONG = 8, 200
"""Requests at once, enough that one replica is never the better place for all, and their tokens."""

LOOKS_S = 2 * PERIOD_S
"""An edit counts once two looks read the same."""

SEEN_S = 0.5
"""Beside the looks at which replicas answer, a dozen answers each, that show what has changed."""

ANSWER_S = 10.0
"""More than a short answer may take on two busy cores."""

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def second(start_stack):
    """Return another Triton with the same engine, which goes when this file is done."""
    running = start_stack("--no-router")
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def replicas(triton, second):
    """Return both Tritons' addresses, with their pages."""
    return {
        f"127.0.0.1:{one.port('TRITON_GRPC')}": (
            f"http://127.0.0.1:{one.port('TRITON_METRICS')}/metrics"
        )
        for one in (triton, second)
    }


def listed(replicas, names, drained=()):
    """Return a list of replicas, as a policy or a file has it (JSON is YAML)."""
    drain = {name: {"drain": True} if name in drained else {} for name in names}
    return json.dumps([{"address": n, "metrics": replicas[n], **drain[n]} for n in names])


def policy(said):
    return f"""
models:
  local:
    triton: {{engine: {ENGINE}, replicas: {said}}}
default: {{model: local, slo: {{ttft_ms: 5000, attainment: 0.95}}}}
"""


def used(router):
    """Return the replicas that a few requests at once went to; all were answered."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        told = list(pool.map(lambda _: router.ask(tokens=SHORT), range(AT_ONCE)))
    assert {one.code for one in told} == {"OK"}, [one.sentence for one in told]
    assert max(one.took_s for one in told) < ANSWER_S
    return {one.decision.replica for one in told}


def state(router, replica):
    """Return where a replica's circuit stands, as the router's metrics say."""
    rows = router.gauges()["forebay_engine_state"]
    return next(dict(labels)["state"] for labels in rows if dict(labels)["engine"] == replica)


def test_each_replica_has_one_router_and_the_other_takes_over_from_a_dead_one(replicas, tmp_path):
    said = policy(listed(replicas, replicas))
    owners = str(tmp_path / "owners.db")
    with (
        serving(tmp_path / "a", said, FOREBAY_OWNERS=owners, FOREBAY_ROUTER="a") as first,
        serving(tmp_path / "b", said, FOREBAY_OWNERS=owners, FOREBAY_ROUTER="b") as other,
    ):
        until(lambda: len(used(first)) == len(used(other)) == 1, LEASE_S + 3 * BEAT_S)
        with ThreadPoolExecutor(2) as pool:
            mine, theirs = pool.map(used, (first, other))
        assert mine | theirs == set(replicas), "both answer, each by a replica of its own"
        assert not mine & theirs

        left, over = [], threading.Event()

        def ask_on():
            while not over.is_set():
                left.append(other.ask(tokens=SHORT))

        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(ask_on)
            looked_s = [time.monotonic()]
            first.kill()

            def taken_over():
                looked_s.append(time.monotonic())
                return used(other) == set(replicas)

            until(taken_over, LEASE_S + 2 * BEAT_S + 2 * ANSWER_S)
            # When the look before the last began it was not so yet; that look took what it took.
            took_s = looked_s[-2] - looked_s[0]
            over.set()
            asking.result(ANSWER_S)
        print(f"took over {took_s:.1f} s after kill -9; {len(left)} answers meanwhile")
        assert took_s <= LEASE_S + BEAT_S + SEEN_S
        assert {one.code for one in left} == {"OK"}
        assert max(one.took_s for one in left) < ANSWER_S


def test_a_replica_that_is_down_costs_nobody_an_answer(replicas, tmp_path):
    """It is in the list, and nobody has called it yet: each who does goes to the other one."""
    one, _ = replicas
    with socket.create_server(("127.0.0.1", 0)) as held:
        down = f"127.0.0.1:{held.getsockname()[1]}"
    pages = {down: "http://127.0.0.1:9/metrics", one: replicas[one]}
    with serving(tmp_path / "router", policy(listed(pages, pages))) as router:
        for _ in range(3):
            assert used(router) == {one}
        until(lambda: state(router, down) in ("open", "half_open"), ANSWER_S)


def test_a_list_edited_while_serving_moves_requests_and_breaks_none(replicas, tmp_path):
    one, two = replicas
    file = tmp_path / "replicas.json"
    file.write_text(listed(replicas, [one]))
    with serving(tmp_path / "router", policy(json.dumps({"file": str(file)}))) as router:
        assert used(router) == {one}
        file.write_text(listed(replicas, [one, two]))
        added_s = until(lambda: used(router) == {one, two}, LOOKS_S + ANSWER_S)

        file.write_text("- {address: 127.0.0.1:0}\n")
        until(lambda: "replicas not read" in router.log.read_text(), LOOKS_S + 1)
        until(lambda: used(router) == {one, two}, 3)  # a list that is wrong changes nothing

        file.write_text(listed(replicas, [one, two], drained=[two]))
        until(lambda: used(router) == {one}, LOOKS_S + ANSWER_S)
        assert state(router, two) == "draining"
        file.write_text(listed(replicas, [one, two]))
        until(lambda: used(router) == {one, two}, LOOKS_S + ANSWER_S)

        with ThreadPoolExecutor(RUNNING) as pool:
            running = [pool.submit(router.ask, tokens=LONG) for _ in range(RUNNING)]
            until(lambda: sum(router.gauges()["forebay_inflight"].values()) == RUNNING, 5)
            file.write_text(listed(replicas, [two]))
            removed_s = until(lambda: used(router) == {two}, LOOKS_S + ANSWER_S)
            assert used(router) == {two}
            told = [each.result(60) for each in running]
        print(f"added after {added_s:.1f} s, removed after {removed_s:.1f} s")
        assert one in {each.decision.replica for each in told}
        assert {each.code for each in told} == {"OK"}, "what ran on the one taken out goes on"
        assert {each.done.completion_tokens for each in told} == {LONG}
