"""A controller with engines of a round speed, and requests for it: what admission's tests share."""

from forebay.policy.admission import Ask, Coefficients, Controller, Place, ReplicaSpec, Terms
from forebay.values import Scrape

SPEED = Coefficients(0.01, 0.001, 1e-6, 0.0001)
"""A step: 10 ms, 1 ms for each stream, 1 ms for 1,000 tokens of context, 0.1 ms a prompt token."""

CLOUD = Place("cloud", input_usd=1e-6, output_usd=2e-6, expect_ttft_s=0.4, expect_tpot_s=0.02)
SMALL = Place("small", "small")
CHAT = Terms("chat", ttft_s=1.0, tpot_s=0.1, spill_to="cloud")
PRIVATE = Terms("private", ttft_s=1.0, tpot_s=0.1)
PLAIN = Terms("plain", promised=False)


def scene(replicas=1, *, place=None, tiers=None, outside=None, **spec):
    """Return a controller over `replicas` engines of the target `local`, a weaker one, a cloud."""
    made = Controller(
        [place or Place("local", "local"), SMALL, CLOUD], tiers=tiers, outside=outside
    )
    said = {"kv_tokens": 10_000, "max_batch": 8, "step_tokens": 512, "prior": SPEED} | spec
    for number in range(replicas):
        made.join(ReplicaSpec(f"r{number}", "local", **said), 0.0)
    return made


def replica(made, number=0):
    return made.state.pools["local"].replicas[f"r{number}"]


def ask(terms=CHAT, *, prompt=100, most=50, at=0.0, target="local", name="x", **more):
    return Ask(name, terms, target, prompt, most, at, **more)


def place(made, asked, now_s=0.0):
    """Ask, and return the ticket with what was decided on it at once, or None."""
    ticket = made.ask(asked, now_s)
    return ticket, dict(made.drain(now_s)).get(ticket)


def settled(made, asked, now_s=0.0):
    """Return what is decided on a request in the end, when nothing else happens."""
    ticket, found = place(made, asked, now_s)
    while found is None:
        found = dict(made.drain(made.due_s())).get(ticket)
    return found


def filled(made, count, *, terms=PLAIN, first=True, **more):
    """Put so many requests inside; each has its first token already."""
    tickets = []
    for _ in range(count):
        ticket, found = place(made, ask(terms, **more))
        assert found is not None
        if first:
            made.tokens(ticket, 1, 0.0)
        tickets.append(ticket)
    return tickets


def scraped(made, now_s=0.0, own=0, **told):
    made.scraped(replica(made), Scrape(now_s, **told), own)
