"""Which language a text is written in, by its script and its commonest words; "" if unsure.

Good for a rule like "answers are in German", not for linguistics: a few words of a text in
Latin letters are too few, and languages that are not listed here are not told apart.
"""

from __future__ import annotations

import re
from collections import Counter

READ_MAX = 4096
"""Characters looked at, from the beginning."""

_WORDS = {
    "en": "the and is are was of to in that it for with you this not have be on as what how",
    "de": "der die das und ist sind nicht ein eine ich sie zu den mit auf für von wie dem im es",
    "fr": "le la les et est une des que pas pour dans vous je du avec sur sont qui au ce",
    "es": "el los las y es una que no por para con del se su como más está en lo al",
    "it": "il gli e è una che non per con della di sono come più questo nel alla si da lo",
    "pt": "o os as e é uma que não por para com do da se como mais em um ao na",
    "nl": "de het een en is van niet dat ik je voor met op zijn aan ook te er maar wat",
}
_COMMON = {language: frozenset(words.split()) for language, words in _WORDS.items()}

_SCRIPTS = (
    ("ja", re.compile("[\u3040-\u30ff]")),
    ("ko", re.compile("[\uac00-\ud7af]")),
    ("zh", re.compile("[\u4e00-\u9fff]")),
    ("ru", re.compile("[\u0400-\u04ff]")),
    ("el", re.compile("[\u0370-\u03ff]")),
    ("ar", re.compile("[\u0600-\u06ff]")),
    ("he", re.compile("[\u0590-\u05ff]")),
    ("hi", re.compile("[\u0900-\u097f]")),
    ("th", re.compile("[\u0e00-\u0e7f]")),
)
_LETTER = re.compile(r"[^\W\d_]")
_WORD = re.compile(r"[^\W\d_]+")


def language_of(text: str) -> str:
    """Return the language's two letters, or "" where the text does not tell."""
    read = text[:READ_MAX]
    letters = len(_LETTER.findall(read))
    if not letters:
        return ""
    if not read.isascii():
        for language, script in _SCRIPTS:
            # A language of its own script may quote Latin names; Japanese mixes in Chinese.
            if len(script.findall(read)) * 5 > letters:
                return language
    words = Counter(_WORD.findall(read.lower()))
    score = {language: sum(words[word] for word in common) for language, common in _COMMON.items()}
    best, *others = sorted(score, key=lambda one: -score[one])
    told = score[best] >= 2 and score[best] > score[others[0]]  # noqa: PLR2004 - two words at least
    return best if told else ""
