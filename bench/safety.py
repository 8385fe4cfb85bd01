"""What `safety` catches, and what it refuses without need.

    PYTHONPATH=router .venv/bin/python -m bench.safety [--json] [--brief]

All 450 prompts of XSTest: 200 that should be refused, 250 that only look so. The patterns were
written with the odd rows at hand; the even rows were never read, only counted, so their figures
are the ones to trust. Then the prompts and answers of GSM8K, MT-Bench, HumanEval and ALCE, none
of which is harmful, and answers put together from the requests: each "How do I ...?" as
instructions for it. With Wilson's 95 % intervals; what went wrong is listed.
"""

import argparse
import csv
import json
import re
from collections import Counter, defaultdict
from pathlib import Path

from bench.intervals import told
from bench.refusals import answers

from forebay.policy.verifiers.safety import answered, asked

PROMPTS = Path(__file__).parent.parent / "data/prompts"
_HOW = re.compile(
    r"^(?:How (?:do|can|could) (?:I|we|you)(?: best)?|Can you tell me how to) (.*)\?$"
)


def rows() -> list[dict[str, str]]:
    with (PROMPTS / "xstest_prompts.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def half(row: dict[str, str]) -> str:
    return "odd rows (read)" if int(row["id"]) % 2 else "even rows (unread)"


def instructions(row: dict[str, str]) -> str | None:
    """Return a request as an answer that would serve it."""
    found = _HOW.match(row["prompt"])
    if found is None:
        return None
    return f"Here is how to {found.group(1)}. First, make a plan. Then, follow these steps."


def on_xstest(*, of_answers: bool) -> tuple[dict[str, dict[str, str]], list[str], Counter[str]]:
    """Return figures by part, what went wrong in the rows that were read, and categories."""
    count: dict[str, Counter[tuple[str, bool]]] = defaultdict(Counter)
    wrong, categories = [], Counter[str]()
    for row in rows():
        text = instructions(row) if of_answers else row["prompt"]
        if text is None:
            continue
        found = answered(text) if of_answers else asked(text)
        categories.update(one.category for one in found)
        for part in ("all", half(row), row["type"]):
            count[part][row["label"], bool(found)] += 1
        if bool(found) != (row["label"] == "unsafe") and int(row["id"]) % 2:
            said = ", ".join(one.category for one in found) or "nothing found"
            wrong.append(f"{row['label']}, {said}: {text}")
    figures = {}
    for part, seen in count.items():
        harmful = seen["unsafe", True] + seen["unsafe", False]
        safe = seen["safe", True] + seen["safe", False]
        figures[part] = {
            **({"caught": told(seen["unsafe", True], harmful)} if harmful else {}),
            **({"refused without need": told(seen["safe", True], safe)} if safe else {}),
        }
    return figures, wrong, categories


def ordinary() -> dict[str, list[str]]:
    made: dict[str, list[str]] = defaultdict(list)
    for line in (PROMPTS / "gsm8k_even.jsonl").read_text(encoding="utf-8").splitlines():
        made["GSM8K"].append(json.loads(line)["question"])
    for line in (PROMPTS / "mtbench_questions.jsonl").read_text(encoding="utf-8").splitlines():
        made["MT-Bench"] += json.loads(line)["turns"]
    for line in (PROMPTS / "humaneval_even.jsonl").read_text(encoding="utf-8").splitlines():
        made["HumanEval"].append(json.loads(line)["prompt"])
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--brief", action="store_true", help="no list of what went wrong")
    given = parser.parse_args()
    prompts, wrong, categories = on_xstest(of_answers=False)
    replies, wrong_replies, _ = on_xstest(of_answers=True)
    harmless = {
        name: told(sum(bool(asked(text)) for text in texts), len(texts))
        for name, texts in ordinary().items()
    }
    replied = list(answers())
    harmless["answers"] = told(sum(bool(answered(text)) for text in replied), len(replied))
    if given.json:
        print(json.dumps({"prompts": prompts, "answers": replies, "harmless": harmless}))
        return
    for title, figures in (("XSTest", prompts), ("XSTest as answers", replies)):
        print(f"{title}:")
        for part, said in figures.items():
            print(f"  {part:32} " + "  ".join(f"{name} {one}" for name, one in said.items()))
    print("found: " + ", ".join(f"{count} {name}" for name, count in categories.most_common()))
    print("harmless, found to be harmful:")
    for name, said in harmless.items():
        print(f"  {name:12} {said}")
    for line in () if given.brief else (*wrong, *wrong_replies):
        print(f"    {line}")


if __name__ == "__main__":
    main()
