"""Learns how English letters are read from the CMU pronouncing dictionary, and writes data/text/english_letters.txt.

    python -m tools.make_english_letters

Letters are aligned with phones (each takes none, one or two) by a few rounds of counting; then a letter's reading is
looked up by itself and its neighbours, nearest first, with as many neighbours as change the answer.
Takes half a minute.
"""

import math
import random
from collections import Counter, defaultdict

from data.text.english_letters import LETTERS_FILE, SILENT, contexts, letters_to_phones
from data.text.english_words import read_dictionary

ROUNDS = 5
SAMPLE = 15000
LEAST_COUNT = 3
"""A context is kept if so many letters of the dictionary show it."""
HELD_OUT = 2000

Pairs = dict[tuple[str, str], float]


def align(word: str, phones: list[str], cost: Pairs) -> list[str] | None:
    """The phones of each letter, joined by spaces, on the cheapest path; None if there is none."""
    best: dict[int, tuple[float, list[str]]] = {0: (0.0, [])}
    for index, letter in enumerate(word):
        reached: dict[int, tuple[float, list[str]]] = {}
        for done, (so_far, path) in best.items():
            for count in range(3):
                if done + count > len(phones) or len(phones) - done - count > 2 * (len(word) - index - 1):
                    continue
                read = " ".join(phones[done : done + count])
                total = so_far + cost.get((letter, read), 12.0 + 2.0 * (count == 2))
                if done + count not in reached or total < reached[done + count][0]:
                    reached[done + count] = (total, [*path, read])
        best = reached
    return best[len(phones)][1] if len(phones) in best else None


def learn_alignment(entries: list[tuple[str, list[str]]]) -> Pairs:
    """The cost, -log p(phones | letter), of each pair, from some rounds of aligning and counting."""
    cost: Pairs = {}
    # to begin with, a letter goes with the phones at its place in the word
    counts: Counter[tuple[str, str]] = Counter()
    for word, phones in entries:
        if len(word) == len(phones):
            counts.update(zip(word, phones, strict=True))
    for _ in range(ROUNDS):
        totals: Counter[str] = Counter()
        for (letter, _), count in counts.items():
            totals[letter] += count
        cost = {pair: -math.log(count / totals[pair[0]]) for pair, count in counts.items()}
        counts = Counter()
        for word, phones in entries:
            aligned = align(word, phones, cost)
            counts.update(zip(word, aligned or (), strict=False))
    return cost


def grow(aligned: list[tuple[str, list[str]]]) -> dict[str, str]:
    """The reading of each context that differs from that of its next smaller one."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for word, reads in aligned:
        for index, read in enumerate(reads):
            for context in contexts(word, index):
                seen[context][read] += 1
    kept: dict[str, str] = {}
    for context in sorted(seen, key=len):
        read, count = seen[context].most_common(1)[0]
        shorter = next((kept[context[:end]] for end in range(len(context) - 1, 0, -1) if context[:end] in kept), None)
        if read != shorter and (count >= LEAST_COUNT or len(context) == 1):
            kept[context] = read
    return kept


def main() -> None:
    """Learns on all words but a few, says how well those are read, and writes the table."""
    entries = [
        (word, phones.split()) for word, phones in read_dictionary().items() if word.isalpha() and word.isascii()
    ]
    random.Random(0).shuffle(entries)
    cost = learn_alignment(entries[:SAMPLE])
    aligned = [(word, found) for word, phones in entries if (found := align(word, phones, cost))]
    table = grow(aligned[HELD_OUT:])
    lines = "".join(f"{context}\t{read or SILENT}\n" for context, read in sorted(table.items()))
    LETTERS_FILE.write_text(lines, encoding="utf-8")

    held_out = aligned[:HELD_OUT]
    right = sum(letters_to_phones(word) == " ".join(read for read in reads if read) for word, reads in held_out)
    print(f"{len(table)} contexts, {len(lines) / 1e3:.0f} kB; of words held out {right / HELD_OUT:.1%} are read right")


if __name__ == "__main__":
    main()
