"""policies/seed.yaml as it stands, on real Triton and foreign providers, through every door.

Of each request: exactly one record, which names each step, and what its client saw.
"""

import re

import pytest
from aimocks import NEEDED, aimock
from seed_cases import (
    BREAKAGES,
    CUT_HERE,
    FRONTIER,
    LEGAL,
    LOCAL,
    SEVEN_DIGITS,
    SITUATIONS,
    SUMMARIES,
    SUPPORT,
    Question,
)
from seed_doors import DOORS, ask
from seed_routers import KEY, ROUTES, SEED, policy, seeded

from forebay.v1 import router_pb2 as pb

pytestmark = [NEEDED, pytest.mark.timeout(180)]

STATUS = {
    "ok": {"grpc": "OK", "kserve": "OK", "http": "200"},
    "parked": {"grpc": "OK", "kserve": "OK", "http": "202"},
    "answer_refused": {"grpc": "ABORTED", "kserve": "ABORTED", "http": "502"},
    "engine_unavailable": {"grpc": "UNAVAILABLE", "kserve": "UNAVAILABLE", "http": "503"},
    "overloaded": {"grpc": "RESOURCE_EXHAUSTED", "kserve": "RESOURCE_EXHAUSTED", "http": "429"},
}
"""How each door tells how a request ended."""

FINISH = {"grpc": "ticket", "http": "content_filter", "kserve": ""}
"""Why an answer ended that a person will give."""

ENOUGH = 100
"""Answers after which the router believes how fast a cloud is: before, too slow to spill to."""

OVERLONG = "The river rose, and then it fell again. " * 200
"""A prompt that no engine on CPUs reads in 800 ms."""


def at(situations):
    """Return every situation at every door, streamed and not."""
    return [
        pytest.param(one, door, stream, id=f"{one}, {door}, {'stream' if stream else 'whole'}")
        for one in situations
        for door, stream in DOORS
        if not (one.chat and door == "kserve")
    ]


every_door = pytest.mark.parametrize(("door", "stream"), DOORS)


@pytest.fixture(scope="module")
def provider():
    """Yield the port of a server that speaks both providers' APIs."""
    with aimock("seed.json", KEY) as (_, port):
        yield port


@pytest.fixture(scope="module")
def plain(tmp_path_factory, triton, provider):
    """Yield a router under the seed policy; the frontier answers it less than `ENOUGH` times."""
    with seeded(tmp_path_factory.mktemp("plain"), triton, provider) as made:
        yield made


@pytest.fixture(scope="module")
def mending(tmp_path_factory, triton, provider):
    """Yield one whose three routes repair an answer once."""
    with seeded(tmp_path_factory.mktemp("mending"), triton, provider, repair=True) as made:
        yield made


@pytest.fixture(scope="module")
def breaking(tmp_path_factory, triton, provider):
    """Yield one for what breaks providers, whose circuits must not open for other tests."""
    with seeded(tmp_path_factory.mktemp("breaking"), triton, provider) as made:
        yield made


def goes(to, situation, door, way, *, stream):
    """Ask, and assert the whole way and all that the client saw; return the record."""
    seen = ask(to, door, situation.question, stream=stream)
    left, raw = to.left(), "".join(seen.raw)
    assert left.steps == way.steps
    said = (left.route, left.status, left.door, left.stream)
    assert said == (situation.route, way.status, door, stream)
    answered = way.status in {"ok", "parked"}
    begun = (door == "kserve" and stream) or (door == "http" and stream and answered)
    assert seen.status == STATUS["ok" if begun else way.status][door]
    assert seen.reason == ("" if answered else way.status)
    assert way.fits(seen.text), seen.text
    assert seen.calls == way.calls
    assert "WITHHELD" not in raw
    assert door == "kserve" or left.id in raw, "the client can name its record"
    if (door, stream) == ("grpc", True):
        assert seen.decided == [one.rpartition(":")[0] for one in way.steps]
    assert bool(seen.ticket) == (way.status == "parked")
    if seen.ticket:
        assert seen.finish == FINISH[door]
        assert (f"/v1/tickets/{seen.ticket}" in seen.refusal) == (door == "http")
        assert to.ticket(seen.ticket)["state"] == "waiting"
    return left


def test_the_designs_routes_are_the_seeds():
    assert SEED.count(ROUTES) == 1
    assert SEED.count("\nroutes:\n") == 1


@pytest.mark.parametrize("repair", [False, True])
def test_the_policy_served_here_differs_in_where_the_providers_are(repair):
    served = re.sub(r'base_url: "http://127.0.0.1:1(?:/v1)?", ', "", policy(1, repair=repair))
    assert served.count("    repair: 1\n") == (3 if repair else 0)
    assert served.replace("    repair: 1\n", "") == SEED


@pytest.mark.parametrize(("situation", "door", "stream"), at(SITUATIONS))
def test_the_policy_as_it_stands(plain, situation, door, stream):
    goes(plain, situation, door, situation.taken(door, repair=False), stream=stream)


@pytest.mark.parametrize(("situation", "door", "stream"), at(s for s in SITUATIONS if s.mended))
def test_with_one_repair_on_each_route(mending, situation, door, stream):
    goes(mending, situation, door, situation.taken(door, repair=True), stream=stream)


@pytest.mark.parametrize(("situation", "door", "stream"), at(BREAKAGES))
def test_providers_that_break(breaking, situation, door, stream):
    # Their circuits stay closed and retries are paid for: most calls go well.
    for well in (SUPPORT[0], LEGAL[0]) * 2:
        goes(breaking, well, "grpc", well.way, stream=False)
    goes(breaking, situation, door, situation.way, stream=stream)


@every_door
def test_the_engine_answers_in_time_or_late_where_no_cloud_is_known_to_be_faster(
    plain, door, stream
):
    # Which of the two, this machine's speed decides; the target is the same.
    summary = SUMMARIES[0]
    left = goes(plain, summary, door, summary.way, stream=stream)
    assert left.attempts[0]["reason"] in {"route_matched", "late_anyway"}


@every_door
def test_a_provider_is_told_no_address(plain, door, stream):
    words = "wrote of the islands"
    told = len(plain.heard(words))
    text = f"Summarize as one number what ann.smith@example.org {words}."
    seen = ask(plain, door, Question(text, SEVEN_DIGITS, tokens=3), stream=stream)
    left = plain.left()
    assert left.steps == (CUT_HERE, f"escalate:{FRONTIER}:answered")
    assert seen.text == "7654321"
    (heard,) = plain.heard(words)[told:]
    assert "what [EMAIL] wrote" in heard
    assert "ann.smith" not in heard
    verdict = left.attempts[1]["verdicts"][0]
    assert (verdict["verifier"], verdict["outcome"]) == ("pii_redaction", "redacted")


@pytest.mark.parametrize("door", ["grpc", "kserve", "http"])
def test_a_stream_that_has_begun_ends_in_an_error_and_climbs_no_more(plain, door):
    words = "as an object who lives in the swamp"
    schema = '{"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}'
    seen = ask(plain, door, Question(f"Summarize {words}.", schema, tokens=4), stream=True)
    left = plain.left()
    assert left.steps == (f"first:{LOCAL}:refused by json_schema",)
    assert left.status == "answer_refused"
    assert seen.text.startswith("{"), "what the window let go of before the verdict"
    assert (seen.reason, seen.finish) == ("answer_refused", "")
    assert plain.heard(words) == []


def test_what_the_engine_cannot_answer_in_time_is_spilled(tmp_path, triton, provider):
    with seeded(tmp_path / "spilling", triton, provider) as spilling:
        for _ in range(ENOUGH):
            goes(spilling, LEGAL[0], "grpc", LEGAL[0].way, stream=False)
        long = Question(f"Summarize a long report of the river. {OVERLONG}", tokens=64)
        for door, stream in DOORS:
            seen = ask(spilling, door, long, stream=stream)
            left = spilling.left()
            assert left.steps == (f"first:{LOCAL}:slo_at_risk", f"spill:{FRONTIER}:answered")
            assert seen.text == "The river rose, and fell again."


def test_a_ticket_outlives_a_router_that_was_killed(tmp_path, triton, provider):
    home, parks = tmp_path / "killed", LEGAL[1]
    with seeded(home, triton, provider) as killed:
        ticket = ask(killed, "http", parks.question, stream=False).ticket
        assert killed.left().status == "parked"
        before = killed.ticket(ticket)
        killed.router.kill()
    with seeded(home, triton, provider) as again:
        again.asked = 1
        assert again.ticket(ticket) == before
        assert before["state"] == "waiting"
        assert again.router.stub.GetTicket(pb.GetTicketRequest(id=ticket)).state == "waiting"
