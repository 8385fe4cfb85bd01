"""Words that the reading of claims knows: English, and the commonest negations of a few more."""

from __future__ import annotations

_ABBREVIATED = """
mr mrs ms dr prof sr jr st no nr vs etc inc ltd co corp e.g i.e cf al fig art para sec vol pp
approx u.s u.k u.n a.m p.m jan feb mar apr jun jul aug sep sept oct nov dec gen col sen rep
"""
_STOP = """
a about above after again against all also although am an and any are as at be because been
before being below between both but by can could did do does doing down during each either even
ever few for from further had has have having he her here hers herself him himself his how
however i if in into is it its itself just may me might more most much must my myself of off on
once one only or other our ours ourselves out over own per same shall she should since so some
such than that the their theirs them themselves then there these they this those though through
thus to too under until up upon us very was we were what when where whereas whether which while
who whom whose why will with within would yet you your yours yourself according therefore hence
moreover furthermore additionally overall finally first second third source sources document
documents states stated says said mentions notes reports describes one
"""
_NEGATIONS = """
not no never none neither nor cannot without nobody nothing nowhere hardly scarcely barely fails
failed fail unable false falsely untrue incorrect incorrectly wrong wrongly deny denies denied
refuse refuses refused lack lacks lacked nicht kein keine nie pas jamais aucun nunca ningun non mai
"""
_TURNS = "but although though while whereas however"
_COUNTED = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen twenty
"""
_SUFFIXES = """
ations ation ating ators ator ated ates ate ences ence ances ance ently ent ant ments ment
nesses ness ities ity ings ing edly ied ies ers er ed es ly ic al ions ion s e y
"""

ABBREVIATED = frozenset(_ABBREVIATED.split())
"""What a full stop may follow without ending a sentence, in lower case."""

STOP = frozenset(_STOP.split())
"""Words that carry no content of their own."""

NEGATIONS = frozenset(_NEGATIONS.split())
"""Words that negate what follows; those that end in `n't` do too."""

TURNS = frozenset(_TURNS.split())
"""Words that end a clause, and with it what a negation covers."""

NUMBERS = {word: str(number) for number, word in enumerate(_COUNTED.split()) if word != "one"} | {
    "thirty": "30",
    "forty": "40",
    "fifty": "50",
    "sixty": "60",
    "seventy": "70",
    "eighty": "80",
    "ninety": "90",
    "twice": "2",
    "thrice": "3",
    "dozen": "12",
}
"""Numbers in words; "one" is left out: it is a pronoun more often."""

SUFFIXES = tuple(_SUFFIXES.split())
"""Endings that are left out before words are compared; the first that fits."""
