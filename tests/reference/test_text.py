"""The front ends give what the reference's give, row by row; text_parity.json has the shares.

REFERENCE_DIR names the folder of the rows, REFERENCE_OUT the folder to write to (default: a
temporary one).
"""

import json
import os
from pathlib import Path

import pytest

from data.text.front_end import FrontEndError, Phonemes, get_front_end
from tests.reference.goldens import REFERENCE_DIR

pytestmark = pytest.mark.front_end

CASES = {
    "ZH": ("ZH", "zh", {"normaliser": "reference"}),
    "JP": ("JP", "ja", {"engine": "strict", "normaliser": "reference"}),
    "JP_plus": ("JP", "ja", {"engine": "plus", "normaliser": "reference"}),
    "EN": ("EN", "en", {"normaliser": "reference"}),
}
ENGINES = {
    "ZH": "wetext, jieba, pypinyin",
    "JP": "pyopenjtalk",
    "JP_plus": "pyopenjtalk-plus",
    "EN": "CMUdict 0.6, g2p_en's GRU, inflect",
}
LEAST = {
    "ZH": {"exact": 0.97, "phones_exact": 0.97},
    "JP": {"exact": 0.97, "phones_exact": 0.97},
    "JP_plus": {"phones_exact": 0.93},
    "EN": {"exact": 0.82, "phones_exact": 0.82},
}
MOST_ERRORS = 0.01


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The shares of each case; written when the last one is known."""
    shares: dict[str, dict] = {}
    yield shares
    folder = Path(os.environ.get("REFERENCE_OUT") or tmp_path_factory.mktemp("reference"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text_parity.json").write_text(json.dumps(shares, indent=1) + "\n", encoding="utf-8")


def read(case: str, row: dict) -> Phonemes | None:
    """Return our front end's result; None if it refuses the text. EN gets the row's tokens."""
    language, _, options = CASES[case]
    if language == "EN":
        options = options | {"tokenizer": lambda text: row["tokens"]}
    try:
        return get_front_end(language, **options)(row["text"])
    except FrontEndError:
        return None


def edits(first: list[str], second: list[str]) -> int:
    """Insertions, deletions and substitutions from one list to the other."""
    costs = list(range(len(second) + 1))
    for row, a in enumerate(first, 1):
        diagonal, costs[0] = costs[0], row
        for column, b in enumerate(second, 1):
            diagonal, costs[column] = (
                costs[column],
                min(costs[column] + 1, costs[column - 1] + 1, diagonal + (a != b)),
            )
    return costs[-1]


def compare(row: dict, ours: Phonemes | None) -> tuple[bool, bool, int]:
    """Whether all is equal, whether the phones are, and the phones' edits.

    A text with nothing to say, for which the reference prints the two "_" alone, is refused here:
    that is equal.
    """
    if ours is None:
        refused = row["phones"] == ["_", "_"]
        return refused, refused, 0 if refused else len(row["phones"])
    fields = ("norm_text", "phones", "tones", "word2ph")
    exact = all(getattr(ours, field) == row[field] for field in fields)
    return exact, ours.phones == row["phones"], edits(ours.phones, row["phones"])


@pytest.mark.parametrize("case", CASES)
def test_parity(case, report, capsys):
    language, file, options = CASES[case]
    if language == "JP":
        try:
            get_front_end(language, **options)
        except ValueError as error:
            pytest.skip(str(error))
    lines = (REFERENCE_DIR / "text" / f"{file}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    compared = [compare(row, read(case, row)) for row in rows]
    shares = {
        "exact": sum(exact for exact, _, _ in compared) / len(rows),
        "phones_exact": sum(phones for _, phones, _ in compared) / len(rows),
        "phone_error_rate": sum(count for _, _, count in compared)
        / sum(len(row["phones"]) for row in rows),
        "rows": len(rows),
    }
    report[case] = shares | {"engine": ENGINES[case]}
    with capsys.disabled():
        print(
            f"\n{case} ({ENGINES[case]}):",
            ", ".join(f"{name} {share:.4g}" for name, share in shares.items()),
        )
    for name, least in LEAST[case].items():
        assert shares[name] >= least, f"{case}: {name} is {shares[name]:.3f}, not {least} or more"
    assert shares["phone_error_rate"] <= MOST_ERRORS
