"""`refusal`: whether a model refuses, told by how its answer opens.

A refusal shows in the first sentences, so only these are held back: two of them, or `HELD_MAX`
characters. What is looked for is a first person who cannot, will not or may not do what was
asked; an apology alone, or "I can't believe it", is none. English first, and the commonest forms
in German, French, Spanish, Italian and Portuguese. A refusal that comes later, one in another
language and one that never says so are not found; `docs/verifiers.md` has the figures.
"""

# ruff: noqa: ISC004 - patterns are written in pieces, a line each
from __future__ import annotations

import re

from forebay.policy.regex import Pattern
from forebay.policy.verifiers.fold import seen
from forebay.values import Release, Verdict

NAME = "refusal"

_LEAD_MAX = 32
_OPENING_MAX = 320

HELD_MAX = _LEAD_MAX + _OPENING_MAX
"""The most characters held back: white space that an answer begins with, and its opening."""

_ENOUGH = 60
"""Two sentences that are shorter than this do not say enough yet: "Sorry. No."."""

_END = re.compile(r"[.!?\u3002\uff01\uff1f][\"')\]]*\s+|\n+")

_NOT_ABLE = (
    r"(?:can(?:no|')t|can not|could(?: not|n't)|won't|will not|am (?:not|un)able to"
    r"|'m (?:not|un)able to|am not (?:able|allowed|permitted|going|in a position|comfortable)"
    r"|'m not (?:able|allowed|permitted|going|in a position|comfortable)"
    r"|must (?:respectfully |politely )?(?:decline|refuse|refrain)|have to (?:respectfully "
    r"|politely )?(?:decline|refuse|pass)"
    r"|need to (?:decline|refuse)|(?:must|have to) say no|(?:respectfully |politely )?decline"
    r"|(?:am|'m) (?:designed|programmed|required) not to|refuse|(?:do not|don't) feel comfortable"
    r"|would rather not|'d rather not|(?:am|'m) prohibited from|(?:am|'m) forbidden (?:from|to)"
    r"|(?:do not|don't) (?:provide|assist|help|offer|create|generate|produce|write))"
)
_DO = (
    r"(?:help|assist|support|aid|answer|respond|reply|comply|fulfil?l?|provide|offer|give|share"
    r"|supply"
    r"|creat\w*|writ\w+|generat\w*|produc\w*|engag\w*|discuss\w*|continu\w*|do (?:that|this|so)"
    r"|participat\w*|tell you|say|advi[sc]e|instruct|guide|recommend|suggest|explain how"
    r"|describe how"
    r"|go (?:into|along|ahead|there)|proceed|complete|take part|be (?:of help|able|part)|teach"
    r"|facilitate|promote|encourage|condone|accommodate|entertain|process|perform|make|carry out"
    r"|draft|comment on|talk about|speculate)"
)
_TURNED_DOWN = (
    r"(?:(?:must|have to|need to|will|going to have to) (?:respectfully |politely )?"
    r"(?:decline|refuse|refrain|pass|say no)|(?:respectfully |politely )decline|decline to"
    r"|refuse to|would rather not|'d rather not)"
)
_OPENING = (
    r"(?:^|[.!?:;,\n]\s*|\b(?:but|that|so|and|afraid|however|sorry|apologi[sz]e|unfortunately),? )"
)
_POLITELY = (
    r"(?:(?:really|just|simply|definitely|in good conscience|ethically|legally|currently|also"
    r"|therefore|unfortunately|regrettably),? )*"
)

_SAID = (
    # I can't help with that; I'm not able to provide ...
    rf"{_OPENING}i ?{_POLITELY}{_NOT_ABLE},? {_POLITELY}(?:to )?(?:with )?{_DO}\b",
    # I must decline; I have to say no
    rf"{_OPENING}i ?{_POLITELY}{_TURNED_DOWN}\b",
    # As an AI ..., I ...: an AI that excuses itself
    r"as an? (?:\w+ )?(?:ai|artificial|large language|language|responsible|virtual|digital)"
    rf"[^.!?\n]{{0,80}}\bi ?{_POLITELY}{_NOT_ABLE}\b",
    # that is something I cannot do; nothing I can help with; not something I can ...
    r"\b(?:is|'s|are) (?:not|n't) (?:something|anything)(?: that)? i(?: can|'m able to|'m "
    r"willing to"
    r"| am able to| am willing to|'m comfortable|'ll| will) ?",
    rf"\b(?:is|'s) something (?:that )?i {_NOT_ABLE}",
    rf"\bthere(?: is|'s) no way i can {_DO}",
    # It would be against my guidelines to ...; this request violates our policy
    r"\b(?:goes|is|would be|be|go) against (?:my|our|the|openai's|these|its) [\w ]{0,40}"
    r"\b(?:guideline|polic|principle|programming|value|rule|terms|purpose)",
    r"\b(?:request|question|prompt|content|topic|that|this|it|which)[\w ]{0,30} (?:violates?"
    r"|conflicts? with|contravenes?|breach(?:es)?) (?:my|our|the|openai's|company)"
    r" [\w ]{0,40}(?:guideline|polic|principle|standard|rule|terms)",
    # My guidelines do not allow me to ...
    r"\b(?:my|our) [\w ]{0,40}(?:guidelines?|polic(?:y|ies)|principles?|programming|rules|training)"
    r" (?:do(?:es)?(?: not|n't)|prevents?|prohibits?|forbids?|won't|keeps?|bars?|stops?)",
    rf"\b(?:unable|not (?:able|allowed|permitted|authori[sz]ed)) to {_DO}\b[^.!?\n]{{0,40}}"
    r"\b(?:this|that|your|such|these|those|the) (?:\w+ )?(?:request|question|topic|task|content"
    r"|query"
    r"|information|instructions?|prompt|kind|type|matter)",
    rf"^(?:sorry|apologies|i apologi[sz]e|unfortunately|i regret)[^.!?\n]{{0,60}}\b(?:can't|cannot"
    rf"|can not|unable to|not able to|won't) (?:be able to )?{_DO}\b",
    r"\b(?:i|we)(?: am|'m| are|'re) (?:sorry|afraid|unable)[^.!?\n]{0,60}\b(?:no can do|off[- "
    r"]limits"
    r"|not possible for me)",
    # Beyond what I can; not possible for me; I'd prefer not to; I am prevented from
    r"\b(?:beyond|outside(?: of)?|out of|past) (?:what|the (?:scope|bounds|limits) of what) i(?:'m|"
    r" am)? (?:can|could|able|allowed|permitted|willing|designed)",
    r"\bnot (?:possible|appropriate|acceptable|ethical|right|safe) for me to\b",
    r"\bi(?:'d| would)? (?:prefer|rather) not (?:to )?\w+",
    r"\bi(?: am|'m)? (?:prevented|barred|restricted|prohibited|forbidden|blocked) from\b",
    r"\b(?:isn't|is not|not) something (?:that )?i(?:'m| am|'ll| will| can| would)\b",
    r"\bi (?:do not|don't) (?:think|believe|feel) (?:that )?(?:i|it)(?: is|'s)? (?:should|can"
    r"|could"
    rf"|right|appropriate|ethical|responsible|a good idea)[^.!?\n]{{0,30}}\b{_DO}\b",
    r"\bi (?:do not|don't) have (?:the )?(?:ability|permission|authori[sz]ation|means) to\b",
    rf"\bi shall not {_DO}\b|\bi draw the line\b|\bi(?:'m| am) going to (?:stop|have to stop) "
    r"here\b",
    # No: at the very beginning, on its own
    r"^(?:no|nope|absolutely not|sorry|no way)[,.!]* (?:i|we)(?: am|'m)? (?:can't|cannot|won't"
    r"|will not|not going to|not doing|refuse)\b",
    rf"^(?:can't|cannot|won't|unable to) {_DO}\b",
    # Other languages
    r"\bich (?:kann|darf|werde)\b[^.!?\n]{0,80}\b(?:nicht|keine[nrms]?|leider)\b[^.!?\n]{0,80}"
    r"\b(?:helfen|beantworten|unterstützen|geben|bereitstellen|weiterhelfen|erstellen|nachkommen)",
    r"\bje (?:suis désolée?,? (?:mais )?(?:je )?)?ne (?:peux|suis pas en mesure"
    r"|puis)\b[^.!?\n]{0,40}"
    r"\b(?:aider|répondre|fournir|donner|assister|satisfaire)",
    r"\b(?:no puedo|no me es posible|no estoy en condiciones)\b[^.!?\n]{0,40}"
    r"\b(?:ayudar\w*|responder|proporcionar\w*|asistir\w*|cumplir|ofrecer)",
    r"\bnon posso\b[^.!?\n]{0,40}\b(?:aiutar\w*|rispondere|fornire|fornirti|assister\w*)",
    r"\bnão posso\b[^.!?\n]{0,40}\b(?:ajud\w+|responder|fornecer|atender|auxiliar)",
)
_ANY = Pattern("(?i)(?:" + ")|(?:".join(_SAID) + ")")

_STRAIGHT = str.maketrans({"\u2019": "'", "\u2018": "'", "\u02bc": "'", "\u00a0": " "})
_QUOTED = re.compile(r"[\"\u201c\u201e\u00ab][^\"\u201d\u00bb\n]{0,400}[\"\u201d\u00bb]?")


class RefusalCheck:
    """Holds back how an answer opens; once that is no refusal, the rest leaves as it comes."""

    name = NAME
    release = Release.WINDOW

    def __init__(self) -> None:
        self._text = ""
        self._verdict: Verdict | None = None

    def feed(self, text: str) -> str:
        """Return nothing until the opening is whole, and nothing ever of a refusal."""
        if self._verdict is not None and self._verdict.outcome == "passed":
            return text
        self._text += text
        if self._verdict is None and (end := opening(self._text)) is not None:
            return self._decided(end)
        return ""

    def finish(self) -> tuple[str, Verdict]:
        """Return what is held, and the verdict."""
        rest = self._text
        if self._verdict is None:
            rest = self._decided(len(self._text)) or self._text
        assert self._verdict is not None
        self._text = ""
        return rest, self._verdict

    def _decided(self, end: int) -> str:
        """Judge the opening; return what may leave."""
        self._verdict = judged(self._text[:end])
        if self._verdict.outcome != "passed":
            return ""
        held, self._text = self._text, ""
        return held


def opening(text: str) -> int | None:
    """Return where the opening of an answer ends, or None where more text may belong to it.

    It is the same for every longer text, however the text comes in pieces.
    """
    begin = min(_LEAD_MAX, len(text) - len(text.lstrip()))
    most = begin + _OPENING_MAX
    for sentences, found in enumerate(_END.finditer(text, begin, most), start=1):
        if sentences > 1 and found.start() - begin >= _ENOUGH:
            return found.start() + 1
    return most if len(text) >= most else None


def judged(text: str) -> Verdict:
    """Return the verdict on an answer's opening; what it quotes is not what it says."""
    shown = text.translate(_STRAIGHT)
    for view in (shown, *seen(shown)):
        if _ANY.find(_own(view)) is not None:
            return Verdict(NAME, "failed", "the model refuses", ((0, len(text)),))
    return Verdict(NAME, "passed")


def _own(text: str) -> bytes:
    said = _QUOTED.sub(" ", text.strip()) if text.strip()[:1] not in '"\u201c' else text.strip()
    return " ".join(said.split(" ")).encode("utf-8", "replace")
