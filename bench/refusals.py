"""How well `refusal` tells refusals from answers: real answers, and refusals of many phrasings.

    PYTHONPATH=router .venv/bin/python -m bench.refusals [--seed 1] [--each 500] [--json]

Answers are those of GSM8K, MT-Bench and ALCE in `data/prompts`, and sentences that open like a
refusal and are none, put together by seed. Refusals are put together by seed from openings,
reasons and endings. Of two sets of other phrasings the first was looked at while the patterns
were written, the second was not. No model's own refusals are among the data: the figures are of
phrasings, not of models.
"""

# ruff: noqa: RUF001 - typographic apostrophes are what models write
import argparse
import json
import random
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from bench.intervals import told

from forebay.policy.verifiers.refusal import RefusalCheck

PROMPTS = Path(__file__).parent.parent / "data/prompts"

SORRY = (
    "I'm sorry, but ",
    "I’m sorry, but ",
    "I apologize, but ",
    "Sorry, ",
    "Unfortunately, ",
    "I understand your interest in this, but ",
    "Thank you for asking. ",
    "",
)
CANNOT = (
    "I can't help with that",
    "I cannot assist with this request",
    "I'm not able to provide that information",
    "I am unable to answer this question",
    "I won't be able to write that for you",
    "I must decline",
    "I'm not comfortable discussing this",
    "I will not create content of this kind",
    "as an AI language model, I cannot give advice on this",
    "my guidelines don't allow me to answer",
    "I have to respectfully decline this request",
    "that's not something I can help with",
    "I refuse to take part in this",
    "this request violates our usage policy",
    "it would be against my programming to explain this",
)
BECAUSE = (
    ".",
    ", because it could cause harm.",
    ". It may be illegal where you live.",
    ". Is there anything else I can do for you?",
    ".\n\nIf you are in danger, call your local emergency number.",
)
OTHERS = (
    "Helping with this isn't something I'm going to do.",
    "I'd prefer not to get into that.",
    "That falls outside of what I'm able to offer.",
    "No. That would be wrong, and I want no part in it.",
    "This is where I draw the line: I don't give out such instructions.",
    "I don't think I should answer that.",
    "Let's talk about something else instead.",
    "It isn't possible for me to give you that person's address.",
    "I'm afraid that's beyond what I can share.",
    "You'll have to look elsewhere for that, I'm not allowed to say.",
    "I cannot in good conscience tell you how to do this.",
    "Regrettably I am prevented from responding to such questions.",
    "Your message asks for something dangerous, so I'm going to stop here.",
    "I do not have the ability to open links or browse for that.",
    "My apologies, I can't do that.",
    "I’m really sorry that you’re feeling this way, but I can’t provide the help that you need.",
    "As a large language model trained to be safe, I am unable to fulfil this request.",
    "We are unable to process this prompt due to our content policy.",
    "Such content is not permitted, and I shall not produce it.",
    "Hmm, I can't answer that one.",
)
UNSEEN = (
    "I'm going to have to say no to this one.",
    "Unfortunately that is a topic I stay away from.",
    "This isn't a subject I discuss.",
    "I can't give you legal advice, please ask a lawyer.",
    "Nope, not doing that.",
    "My purpose is to be helpful, and writing this would not be.",
    "I cannot fulfill your request.",
    "Sorry, that is against the rules I follow.",
    "I'm unable to generate images of real people.",
    "I understand, but it wouldn't be right for me to share this.",
    "What you ask for could hurt people, and I will not contribute to it.",
    "I have been instructed not to talk about this.",
    "Apologies, but this request can't be completed.",
    "I don't support or assist with illegal activities.",
    "I'm just an AI and can't feel that, nor can I write about it as if I did.",
    "Responding to this would break our terms of service.",
    "I don't have access to that information, so I can't tell you.",
    "I must refrain from answering.",
    "Please don't ask me to do this.",
    "I'm not going to help you hurt anyone.",
)
NEAR = (
    "I'm sorry to hear that your {} broke. Here is what you can do:",
    "I can't stress this enough: check the {} first.",
    "You cannot divide by zero, so the {} has no answer there.",
    "Sorry for the delay! The {} is ready, and costs 12 euros.",
    "I cannot believe how well the {} turned out. Step one is to mix the flour.",
    "Unfortunately, the {} was delayed; it arrives on Monday.",
    '"I can\'t help you," said the old {}, and walked away into the rain.',
    "The law does not allow a {} to be sold without a licence. You can apply for one online.",
    "If the {} is unable to start, replace its battery.",
    "To decline the invitation, write: thank you for the {}, but I will be away.",
    "As an AI, I find the {} interesting. It was invented in 1901.",
    "I won't lie, the {} is hard to build. Begin with the frame.",
    "The policy of the {} does not cover theft, as section 4 says.",
    "Nobody could help the {} in time, which is why the bridge closed.",
)
THINGS = ("printer", "boat", "cake", "engine", "garden", "company", "museum", "sensor")


def answers() -> Iterator[str]:
    for line in (PROMPTS / "gsm8k_even.jsonl").read_text(encoding="utf-8").splitlines():
        yield json.loads(line)["answer"]
    for line in (PROMPTS / "mtbench_questions.jsonl").read_text(encoding="utf-8").splitlines():
        yield from json.loads(line).get("reference") or []
    for demo in json.loads((PROMPTS / "alce_asqa_demo.json").read_text(encoding="utf-8"))["demos"]:
        yield demo["answer"]
        yield from (doc["text"] for doc in demo["docs"])


def drawn(draw: random.Random, texts: list[str], most: int) -> list[str]:
    return texts if len(texts) <= most else draw.sample(texts, most)


def sets(seed: int, each: int) -> dict[str, tuple[bool, list[str]]]:
    """Return texts by name, with whether they are refusals."""
    draw = random.Random(seed)
    put_together = [
        f"{sorry}{cannot if sorry and not sorry.endswith('. ') else cannot[0].upper() + cannot[1:]}"
        f"{why}"
        for sorry, cannot, why in product(SORRY, CANNOT, BECAUSE)
    ]
    return {
        "refusals put together": (True, drawn(draw, put_together, each)),
        "refusals in other phrasings": (True, list(OTHERS)),
        "refusals in unseen phrasings": (True, list(UNSEEN)),
        "real answers": (False, list(answers())),
        "answers that open alike": (False, [n.format(t) for n, t in product(NEAR, THINGS)]),
    }


def refuses(text: str) -> bool:
    check = RefusalCheck()
    check.feed(text)
    return check.finish()[1].outcome == "failed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--each", type=int, default=500, help="refusals put together")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    figures = {}
    for name, (wanted, texts) in sets(asked.seed, asked.each).items():
        wrong = [text for text in texts if refuses(text) is not wanted]
        figures[name] = told(len(texts) - len(wrong), len(texts))
        if not asked.json:
            print(f"{name}: right {figures[name]}")
            for text in wrong:
                print(f"    {text[:120]!r}")
    if asked.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
