"""Is the benchmark fair? Every question answerable from the frames that are sampled, and from nothing else.

    python -m eval.synthetic.world.checks outputs/synthvid
    python -m eval.synthetic.world.checks outputs/synthvid --split guard

Checked: each answer holds in each sampling by itself, letters and answers are balanced, classifiers that read only the
text and learn on the ``val`` split stay near a guess, no clip is in two splits. Exit status 1 when a check fails; the
last line is JSON. What a model answers without seeing anything needs the model: ``eval.synthetic.answers.table`` asks
it about a grey video (row ``blank``).
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from math import ceil, sqrt
from pathlib import Path
from typing import Any

import numpy as np

from eval.instruments.cli import Parser, provenance, user_errors
from eval.synthetic.world.dataset import FOLDER, load_questions, read_manifest
from eval.synthetic.world.items import Item
from eval.synthetic.world.questions import OPTIONS, Facts, candidates
from eval.synthetic.world.selection import LETTERS, SPLITS, Split, answer_kinds, draw_world

LEARNED_ON = "val"
_LETTERS_OVERALL, _LETTERS_FAMILY = (0.22, 0.28), (0.15, 0.35)
_TEXT_ALONE = 0.30  # share that a reader of the text may get right
_SHOWN = 10  # problems printed for a check

Counts = Counter[tuple[str, ...]]
Guesser = Callable[[Counts, Item], Sequence[float]]


def invisible(items: Sequence[Item], split: Split, seed: int) -> list[str]:
    """Questions whose answer does not hold in a sampling of the split by itself, or whose world is not all seen."""
    found = []
    for item in items:
        world, _ = draw_world(split, seed, item.world)
        fact = (item.family, item.question.text, item.question.options[item.question.answer])
        for frames in split.samplings:
            facts = Facts(world, split.file_frames, (frames,))
            every = candidates(facts, np.random.default_rng(0))[item.family]
            if not facts.sound() or fact not in {(c.family, c.text, c.answer) for c in every}:
                found.append(f"{item.identity}: not answerable from {frames} frames")
    return found


def most_shown(items: Sequence[Item], split: Split, seed: int) -> dict[int, int]:
    """For each sampling, the most frames in which an object of a needle question is seen."""
    most = dict.fromkeys(split.samplings, 0)
    for item in items:
        if item.family == "needle":
            world, _ = draw_world(split, seed, item.world)
            names = [thing.name for thing in world.things]
            number = names.index(item.question.options[item.question.answer])
            for frames in split.samplings:
                most[frames] = max(most[frames], Facts(world, split.file_frames, (frames,)).frames(number))
    return most


def letter_shares(items: Sequence[Item]) -> dict[str, list[float]]:
    """Share of each letter among the right ones, for ``all`` and each family."""
    families = {"all": list(items)}
    for item in items:
        families.setdefault(item.family, []).append(item)
    return {
        family: [sum(item.question.answer == n for item in group) / len(group) for n in range(OPTIONS)]
        for family, group in families.items()
    }


def letter_problems(items: Sequence[Item]) -> list[str]:
    """Letters outside their bounds; a family of few questions may be one question off an equal share."""
    found = []
    for family, shares in letter_shares(items).items():
        count = len(items) if family == "all" else sum(item.family == family for item in items)
        low, high = _LETTERS_OVERALL if family == "all" else _LETTERS_FAMILY
        low, high = min(low, (count // OPTIONS - 1) / count), max(high, (ceil(count / OPTIONS) + 1) / count)
        for letter, share in zip(LETTERS, shares, strict=True):
            if not low <= share <= high:
                found.append(f"{family}: {letter} is right in {share:.1%}, outside {low:.1%} to {high:.1%}")
    return found


def answer_problems(items: Sequence[Item]) -> list[str]:
    """Answers (for names: colors and shapes) that are right more often than an equal share and two questions more."""
    sizes = Counter(item.family for item in items)
    counts: Counter[tuple[str, str, int]] = Counter()
    for item in items:
        kinds = answer_kinds(item.family, item.question.options[item.question.answer])
        counts.update((item.family, word, kind) for word, kind in kinds.items())
    return [
        f"{family}: {word!r} is right {count} times of {sizes[family]}"
        for (family, word, kind), count in sorted(counts.items())
        if count > ceil(sizes[family] / kind) + 2
    ]


def _learn(items: Sequence[Item]) -> Counts:
    """How often letters, options and pairs of options were right, and how often they were offered."""
    counts: Counts = Counter()
    for item in items:
        family, options = item.family, item.question.options
        counts["letter", family, LETTERS[item.question.answer]] += 1
        for number, option in enumerate(options):
            tags = ["offered", "right"] if number == item.question.answer else ["offered"]
            counts.update((tag, family, option) for tag in tags)
            counts.update((tag, family, option, other) for tag in tags for other in options if other != option)
            counts.update((tag, family, f"word {word}") for tag in tags for word in option.split())
    return counts


def _by_letter(counts: Counts, item: Item) -> list[float]:
    return [counts["letter", item.family, letter] for letter in LETTERS]


def _by_answer(counts: Counts, item: Item) -> list[float]:
    return [counts["right", item.family, option] for option in item.question.options]


def _rate(counts: Counts, *key: str) -> float:
    return (counts["right", *key] + 1) / (counts["offered", *key] + OPTIONS)


def _by_word(counts: Counts, item: Item) -> list[float]:
    words = [option.split() for option in item.question.options]
    return [float(np.mean([_rate(counts, item.family, f"word {word}") for word in option])) for option in words]


def _by_company(counts: Counts, item: Item) -> list[float]:
    """An option by how often it was right next to each of the others."""
    options = item.question.options
    return [
        float(np.sum([np.log(_rate(counts, item.family, option, other)) for other in options if other != option]))
        for option in options
    ]


GUESSERS: dict[str, Guesser] = {
    "letter": _by_letter,
    "answer": _by_answer,
    "word": _by_word,
    "company": _by_company,
}


def text_only(learned: Sequence[Item], asked: Sequence[Item]) -> dict[str, dict[str, float]]:
    """Share right of classifiers that never see a video, for ``all`` and each family.

    ``letter``: the letter right most often in the family; ``answer``: the option right most often; ``word``: the option
    whose words were right most often when offered; ``company``: the same for pairs of options offered together.
    """
    counts = _learn(learned)
    shares: dict[str, dict[str, float]] = {}
    for name, guess in GUESSERS.items():
        right: dict[str, list[bool]] = {"all": []}
        for item in asked:
            hit = int(np.argmax(guess(counts, item))) == item.question.answer
            right["all"].append(hit)
            right.setdefault(item.family, []).append(hit)
        shares[name] = {family: float(np.mean(hits)) for family, hits in right.items()}
    return shares


def text_limit(questions: int) -> float:
    """30 %, or three standard errors over a guess where a split is too small for that."""
    chance = 1 / OPTIONS
    return max(_TEXT_ALONE, chance + 3 * sqrt(chance * (1 - chance) / questions))


def duplicates(folder: Path, splits: Sequence[str]) -> list[str]:
    """Clips that are there twice, in one split or in two."""
    places: dict[str, list[str]] = {}
    for split in splits:
        for name, sha256 in read_manifest(folder, split)["files"].items():
            if name.endswith(".mp4"):
                places.setdefault(sha256, []).append(f"{split}/{name}")
    return [" and ".join(same) + " are the same clip" for same in places.values() if len(same) > 1]


def check(folder: Path, splits: Sequence[str]) -> dict[str, Any]:
    """All checks of some splits.

    Returns:
        For each split its numbers and ``problems``; and ``duplicates``.

    Raises:
        InputError: if a split, or the one that text is learned on, is missing or damaged.
    """
    learned = load_questions(folder, LEARNED_ON)
    report: dict[str, Any] = {"duplicates": duplicates(folder, sorted({*splits, LEARNED_ON})), "splits": {}}
    for name in splits:
        items, seed = load_questions(folder, name), read_manifest(folder, name)["seed"]
        guessed = {} if name == LEARNED_ON else text_only(learned, items)
        limit = text_limit(len(items))
        texts = [
            f"{k}: {s['all']:.1%} right by text alone, over {limit:.1%}" for k, s in guessed.items() if s["all"] > limit
        ]
        unseen = invisible(items, SPLITS[name], seed)
        report["splits"][name] = {
            "questions": len(items),
            "needle_frames": most_shown(items, SPLITS[name], seed),
            "letters": letter_shares(items)["all"],
            "text_only": guessed,
            "text_limit": limit,
            "problems": [*unseen, *letter_problems(items), *answer_problems(items), *texts],
        }
    return report


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(FOLDER))
    parser.add_argument("--split", action="append", choices=tuple(SPLITS), help="may be repeated (default: all)")
    options = parser.parse_args(arguments)
    report = check(options.folder, options.split or tuple(SPLITS))
    problems = list(report["duplicates"])
    for name, found in report["splits"].items():
        letters = " ".join(f"{letter} {share:.1%}" for letter, share in zip(LETTERS, found["letters"], strict=True))
        shown = ", ".join(f"{most} of {frames}" for frames, most in found["needle_frames"].items())
        print(f"{name}: {found['questions']} questions; {letters}; needles seen in at most {shown} frames")
        for guesser, shares in found["text_only"].items():
            print(f"  text alone, by {guesser}: {shares['all']:.1%} (at most {found['text_limit']:.1%})")
        problems += [f"{name}: {problem}" for problem in found["problems"]]
    for problem in problems[:_SHOWN]:
        print(f"  PROBLEM {problem}")
    print(f"{len(problems)} problems")
    print(json.dumps({"data": str(options.folder), "problem_count": len(problems), **report, **provenance()}))
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
