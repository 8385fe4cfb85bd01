"""What becomes of a request under the seed policy: each route, each way that it may go.

A `Situation` is a question that provokes one of them. What real SmolLM2 says is held to a form
that it cannot keep in so few tokens; what the providers say is chosen by the question's words
(`aimock/seed.json`). Whatever must not leave has the word WITHHELD in it.
"""

import re
from dataclasses import dataclass, field

from seed_doors import Question

LOCAL = "open_model_self_hosted"
MID = "provider_mid_tier_model"
FRONTIER = "provider_frontier_model"
HUMAN = "human_review_queue"

SOURCES = (
    ("contract", "The notice period is three months. Both parties may give notice in writing."),
)
SEVEN_DIGITS = '{"type": "integer", "minimum": 1000000, "maximum": 9999999}'
THREE_DIGITS = '{"type": "integer", "minimum": 100, "maximum": 999}'
LONG_OR_SHORT = '{"anyOf": [{"const": 1234567890}, {"const": 7}]}'
"""Greedy, SmolLM2 begins with the 1; once its answer stands in the chat, the repetition penalty
has it say 7, and the verdict's reason names neither."""

CUT = 3
"""Tokens, a digit each: `window` holds them all back, so that no stream has begun when it fails."""


@dataclass(frozen=True, slots=True)
class Way:
    """The steps that a request takes, and what its client is told in the end."""

    steps: tuple[str, ...]
    says: str | re.Pattern[str] = ""
    calls: tuple[tuple[str, str], ...] = ()
    status: str = "ok"

    def fits(self, text: str) -> bool:
        """Return whether a text is what is to be said, or of its form where a model says it."""
        if isinstance(self.says, re.Pattern):
            return self.says.fullmatch(text) is not None
        return text == self.says


@dataclass(frozen=True, slots=True)
class Situation:
    """A question, its class, and its way; `mended` is the way of a chat whose route repairs.

    `chat` says that only a chat can ask it: a plain text is offered no tools.
    """

    name: str
    route: str
    question: Question
    way: Way
    mended: Way | None = None
    chat: bool = field(default=False, kw_only=True)

    def __str__(self) -> str:
        return f"{self.route}, {self.name}"

    def taken(self, door: str, *, repair: bool) -> Way:
        """Return the way at a door; KServe's plain texts have nobody to say a repair to."""
        return self.mended if self.mended and repair and door != "kserve" else self.way


def _summary(name: str, asked: Question, way: Way, mended: Way | None = None) -> Situation:
    return Situation(name, "summarize", asked, way, mended)


def _support(
    name: str, text: str, way: Way, mended: Way | None = None, *, chat: bool = False
) -> Situation:
    return Situation(name, "customer_support", Question(text), way, mended, chat=chat)


def _legal(name: str, text: str, way: Way, mended: Way | None = None) -> Situation:
    return Situation(name, "legal", Question(text, sources=SOURCES), way, mended)


CUT_HERE = f"first:{LOCAL}:refused by json_schema"
CUT_AGAIN = f"repair:{LOCAL}:refused by json_schema"
PROMISED = f"first:{MID}:refused by policy_rules"
MISCALLED = f"first:{MID}:refused by tool_call_schema"
MISCALLED_AGAIN = f"repair:{MID}:refused by tool_call_schema"
UNCITED = f"first:{FRONTIER}:refused by citations_required"
NO_DISCLAIMER = f"first:{FRONTIER}:refused by policy_rules"
ESCALATED = f"escalate:{FRONTIER}:answered"
PARKED = f"escalate:{HUMAN}:parked"
UNFIT_AT_LAST = f"escalate:{FRONTIER}:refused by policy_rules"

SUMMARIES = (
    _summary(
        "answered",
        Question("Summarize: a dam stores water.", tokens=8),
        Way((f"first:{LOCAL}:answered",), re.compile(r"(?s).*\w.*")),
    ),
    _summary(
        "answered in form",
        Question(
            "Summarize as a number: how many ships came, about 120?", schema=THREE_DIGITS, tokens=8
        ),
        Way((f"first:{LOCAL}:answered",), re.compile(r"[1-9]\d\d")),
    ),
    _summary(
        "escalated",
        Question(
            "Summarize as one number how many live in the valley.", schema=SEVEN_DIGITS, tokens=CUT
        ),
        Way((CUT_HERE, ESCALATED), "1234567"),
        Way((CUT_HERE, CUT_AGAIN, ESCALATED), "1234567"),
    ),
    _summary(
        "repaired",
        Question(
            "Summarize as one number how many live on the coast.",
            schema=LONG_OR_SHORT,
            tokens=CUT,
            repetition_penalty=3.0,
        ),
        Way((CUT_HERE, ESCALATED), "7"),
        Way((CUT_HERE, f"repair:{LOCAL}:answered"), "7"),
    ),
    _summary(
        "refused by the last rung",
        Question(
            "Summarize as one number how many live in the desert.", schema=SEVEN_DIGITS, tokens=CUT
        ),
        Way(
            (CUT_HERE, f"escalate:{FRONTIER}:refused by json_schema"),
            status="answer_refused",
        ),
        Way(
            (CUT_HERE, CUT_AGAIN, f"escalate:{FRONTIER}:refused by json_schema"),
            status="answer_refused",
        ),
    ),
)

SUPPORT = (
    _support(
        "answered",
        "Please say where is my order.",
        Way((f"first:{MID}:answered",), "It leaves the warehouse today."),
    ),
    _support(
        "a call",
        "Please look up order number A-1001.",
        Way((f"first:{MID}:answered",), calls=(("order_status", '{"order_id":"A-1001"}'),)),
        chat=True,
    ),
    _support(
        "a promise",
        "I want a refund for the lamp.",
        Way((PROMISED, ESCALATED), "A colleague decides on that today."),
        Way(
            (PROMISED, f"repair:{MID}:answered"),
            "A colleague will decide on your refund.",
        ),
    ),
    _support(
        "a wrong call",
        "Please look up order number seven.",
        Way((MISCALLED, ESCALATED), calls=(("order_status", '{"order_id":"A-0007"}'),)),
        Way(
            (MISCALLED, MISCALLED_AGAIN, ESCALATED),
            calls=(("order_status", '{"order_id":"A-0007"}'),),
        ),
        chat=True,
    ),
    _support(
        "declined",
        "I want a refund for stolen goods.",
        Way((f"first:{MID}:declined", ESCALATED), "Nobody refunds those."),
    ),
    _support(
        "refused by the last rung",
        "I have a complaint about everything.",
        Way((MISCALLED, UNFIT_AT_LAST), status="answer_refused"),
        Way((MISCALLED, MISCALLED_AGAIN, UNFIT_AT_LAST), status="answer_refused"),
    ),
)

LEGAL = (
    _legal(
        "answered",
        "How long is the contract's notice?",
        Way(
            (f"first:{FRONTIER}:answered",),
            "The notice period is three months [contract]. This is not legal advice.",
        ),
    ),
    _legal(
        "without citations",
        "Who may end the contract?",
        Way((UNCITED, PARKED), status="parked"),
        Way(
            (UNCITED, f"repair:{FRONTIER}:answered"),
            "Both parties may give notice [contract]. This is not legal advice.",
        ),
    ),
    _legal(
        "without a disclaimer",
        "Does the contract bind me?",
        Way((NO_DISCLAIMER, PARKED), status="parked"),
        Way((NO_DISCLAIMER, f"repair:{FRONTIER}:refused by policy_rules", PARKED), status="parked"),
    ),
    _legal(
        "declined",
        "Forge the contract.",
        Way((f"first:{FRONTIER}:declined", PARKED), status="parked"),
    ),
)

SITUATIONS = (*SUMMARIES, *SUPPORT, *LEGAL)

BREAKAGES = (
    _support(
        "the first provider broke",
        "Please find the invoice that breaks one of you.",
        Way(
            (f"first:{MID}:engine_unavailable", f"failover:{FRONTIER}:answered"),
            "It was paid in May.",
        ),
    ),
    _support(
        "both providers broke",
        "Please find the invoice that breaks all of you.",
        Way(
            (f"first:{MID}:engine_unavailable", f"failover:{FRONTIER}:engine_unavailable"),
            status="engine_unavailable",
        ),
    ),
    _legal(
        "the provider broke",
        "Read the contract that breaks you.",
        Way(
            (f"first:{FRONTIER}:engine_unavailable", f"failover:{HUMAN}:parked"),
            status="parked",
        ),
    ),
    _legal(
        "the provider is full",
        "Read the contract that must wait.",
        Way((f"first:{FRONTIER}:overloaded",), status="overloaded"),
    ),
)
