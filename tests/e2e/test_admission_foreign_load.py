"""Triton's truth is what counts: load that never passed the router moves its requests.

The router has no request of its own in flight. Somebody else fills the engine at Triton's own
port, and all that the router can know of it is Triton's metrics page.
"""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from foreign import MetricsProxy, load_of, streams
from routers import ENGINE, STUB_KEY, cloud, serving, until

from forebay.edges.triton_metrics import PERIOD_S
from forebay.policy.admission.replica import STALE_S

SATURATING, TOKENS = 40, 1500
BATCH = 32
SLACK_S = 0.2
"""Beside what is promised: two looks at two servers, on a machine whose cores are all busy."""

TWO_SCRAPES_S = 2 * PERIOD_S
TTFT_MS, CLOUD_TTFT_MS = 1500, 1100
"""A request may wait for the difference, and must leave then for the cloud to be in time."""

pytestmark = pytest.mark.timeout(180)


def policy(triton, url, metrics, slo=f"ttft_ms: {TTFT_MS}"):
    """Return a policy of one class over one engine and one cloud; no limit is set by hand."""
    page = f", metrics: '{metrics}'" if metrics else ""
    address = f"127.0.0.1:{triton.port('TRITON_GRPC')}"
    return f"""
models:
  local:
    triton: {{address: "{address}", engine: {ENGINE}{page}}}
    limits: {{kv_ceiling: 1.0}}
  cloud:
    openai: {{model: stub, base_url: "{url}", key: "env:{STUB_KEY}"}}
    expect: {{ttft_ms: {CLOUD_TTFT_MS}, tpot_ms: 20}}
default:
  model: local
  slo: {{{slo}, attainment: 0.95}}
  spill: {{to: cloud, when: slo_at_risk}}
"""


@pytest.fixture(scope="module")
def metrics(triton):
    """Return the address of Triton's own page."""
    return f"http://127.0.0.1:{triton.port('TRITON_METRICS')}/metrics"


@pytest.fixture(scope="module")
def provider():
    """Return the base URL of a cloud."""
    with cloud() as url:
        yield url


@pytest.fixture
def proxy(metrics):
    """Return a page between Triton and the router, which passes on what Triton says."""
    made = MetricsProxy(metrics)
    yield made
    made.close()


@pytest.fixture
def foreign(triton, metrics):
    """Return what fills the engine past the router; once left, the engine is empty again."""

    def fill(count=SATURATING):
        return streams(f"127.0.0.1:{triton.port('TRITON_GRPC')}", count, tokens=TOKENS)

    yield fill
    until(lambda: load_of(metrics).active == 0, 10)


def own_in_flight(router):
    return sum(router.gauges()["forebay_inflight"].values())


def admits(router):
    return router.placement()[0] == "admit"


def first_seen(within_s, **events):
    """Return when each of some events was first seen, looking at one after the other."""
    seen = {}

    def look():
        for name, happened in events.items():
            if name not in seen and happened():
                seen[name] = time.monotonic()
        return len(seen) == len(events)

    until(look, within_s, lambda: f"only {seen}")
    return seen


@pytest.mark.parametrize("scraped", [True, False], ids=["scraped", "scrape_off"])
def test_foreign_load_queues_and_spills_if_and_only_if_it_is_scraped(
    triton, metrics, provider, foreign, tmp_path, scraped
):
    """The same load and the same requests; only the page differs, and so must what happens."""
    said = policy(triton, provider, metrics if scraped else None)
    with serving(tmp_path, said) as router:
        assert router.ask().decision.target == "local", "an idle engine of our own answers"
        with foreign():
            until(lambda: load_of(metrics).active >= BATCH, 10)
            time.sleep(TWO_SCRAPES_S)
            assert own_in_flight(router) == 0
            told = [router.ask(answered=False) for _ in range(3)]
        decisions = [one.decision for one in told]
        print([(d.target, d.move, d.reason, round(d.queued_ms)) for d in decisions])
        spilled = [
            (d.target, d.move, d.reason) == ("cloud", "spill", "target_full") for d in decisions
        ]
        assert spilled == [scraped] * 3
        may_wait_ms = TTFT_MS - CLOUD_TTFT_MS
        for d in decisions:
            if scraped:
                assert may_wait_ms - 50 <= d.queued_ms <= may_wait_ms + 1000 * SLACK_S
            else:
                assert (d.target, d.move, d.queued_ms < 50) == ("local", "first", True)


def test_it_turns_within_two_scrapes_and_returns_within_two(
    triton, metrics, provider, foreign, tmp_path
):
    with serving(tmp_path, policy(triton, provider, metrics)) as router:
        with foreign():
            turned = first_seen(
                10,
                full=lambda: load_of(metrics).active >= BATCH,
                known=lambda: router.placement()[0] == "queue",
            )
            assert own_in_flight(router) == 0
            told = [router.ask() for _ in range(4)]
        back = first_seen(
            10, empty=lambda: load_of(metrics).active == 0, known=lambda: admits(router)
        )
        late = {
            "turned": turned["known"] - turned["full"],
            "returned": back["known"] - back["empty"],
        }
        print(", ".join(f"{what} after {s * 1000:.0f} ms" for what, s in late.items()))
        assert max(late.values()) <= TWO_SCRAPES_S + SLACK_S
        for one in told:
            assert (one.code, one.decision.target, one.decision.move) == ("OK", "cloud", "spill")
            assert one.done.ttft_ms <= TTFT_MS
        after = router.ask()
        assert (after.code, after.decision.target, after.decision.move) == ("OK", "local", "first")


@pytest.mark.parametrize("mode", ["frozen", "absent", "gone", "relabelled"])
def test_a_page_that_stops_telling_is_unknown_and_unknown_is_not_full(
    triton, metrics, provider, foreign, proxy, tmp_path, mode
):
    """It told of a full engine and then nothing new: that is believed for as long as is stated."""
    with serving(tmp_path, policy(triton, provider, proxy.url)) as router:
        with foreign():
            until(lambda: not admits(router), 10)
            assert router.ask().decision.target == "cloud"
            proxy.become(mode)
            until(lambda: admits(router), STALE_S + TWO_SCRAPES_S + SLACK_S)
            believed_s = time.monotonic() - proxy.told_s
            assert load_of(metrics).active >= BATCH, "the engine is as full as before"
            waits = router.ask(answered=False)
        print(f"{mode}: the last page was believed for {believed_s:.1f} s")
        assert believed_s >= STALE_S
        assert (waits.decision.target, waits.decision.queued_ms < 50) == ("local", True)
        told = router.ask()
        assert (told.code, told.decision.target) == ("OK", "local")


def test_without_a_page_what_our_own_answers_took_is_what_moves_them(
    triton, metrics, provider, foreign, tmp_path
):
    """Slots are free and load is unknown, so only the speed of our own streams can tell."""
    slow = policy(triton, provider, None, slo=f"ttft_ms: {TTFT_MS}, tpot_ms: 30")
    with serving(tmp_path, slow) as router:
        with foreign(24):
            until(lambda: load_of(metrics).active >= 24, 10)
            moves = []
            for _ in range(12):
                told = router.ask(tokens=24)
                assert told.code == "OK"
                moves.append((told.decision.target, told.decision.reason, round(told.took_s, 1)))
                if told.decision.target == "cloud":
                    break
        print(moves)
        assert moves[0][0] == "local", "unknown is not full"
        assert moves[-1][:2] == ("cloud", "slo_at_risk")


def test_numbers_that_froze_while_idle_fill_nobody_and_late_answers_are_noticed(
    triton, metrics, provider, foreign, proxy, tmp_path
):
    """The page says idle for ever; the engine is full: we go there, wait there and are answered."""
    with serving(tmp_path, policy(triton, provider, proxy.url)) as router:
        until(lambda: proxy.page() and router.ask().code == "OK", 5)
        proxy.become("frozen")
        with ThreadPoolExecutor(1) as pool:
            with foreign():
                until(lambda: load_of(metrics).active >= BATCH, 10)
                waits = pool.submit(router.ask)
                time.sleep(2.0)
                assert not waits.done()
            told = waits.result(30)
        assert (told.code, told.decision.target) == ("OK", "local")
        assert told.done.ttft_ms > TTFT_MS
        key = (("route", "default"), ("slo", "ttft"))
        assert router.gauges()["forebay_margin"][key] > 1.0
        assert router.ask().code == "OK"
