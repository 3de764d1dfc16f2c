"""How an English word sounds that the dictionary lacks: g2p_en's network guesses from letters.

A GRU reads the letters; a second one, which begins with the first one's last state, writes phones,
each of which is its next input, until it ends (Cho et al. 2014, arXiv:1406.1078). Published models
were trained with these guesses, good and bad ("FBI" is "bye"), so the weights are those of g2p_en
2.1.0; see NOTICE.
"""

import functools
from pathlib import Path

import numpy as np

WEIGHTS_FILE = Path(__file__).with_name("gru.npz")

# numbers of letters and phones that the weights were trained with
_UNKNOWN_LETTER, _END_OF_LETTERS, _FIRST_LETTER = 1, 2, 3
_START, _END, _FIRST_PHONE = 2, 3, 4
_VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW"
_CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH"
_PHONES = sorted(
    [*_CONSONANTS.split(), *(vowel + stress for vowel in _VOWELS.split() for stress in "012"), "UW"]
)
ARPABET = frozenset(_PHONES)
_MOST_PHONES = 20
"""A guess is cut here, because the network may never end one."""


@functools.cache
def _weights() -> dict[str, np.ndarray]:
    """Return the weights, with the embeddings multiplied by the gates' input weights.

    These products, `enc_inputs` and `dec_inputs`, are [symbols, 3 * width].
    """
    with np.load(WEIGHTS_FILE, allow_pickle=False) as file:
        weights = dict(file)
    for part in ("enc", "dec"):
        weights[f"{part}_inputs"] = (
            weights[f"{part}_emb"] @ weights[f"{part}_w_ih"].T + weights[f"{part}_b_ih"]
        )
    return weights


def _gru(part: str, symbol: int, state: np.ndarray) -> np.ndarray:
    """Take one step of the encoder ("enc") or the decoder ("dec").

    Args:
        part: "enc" or "dec".
        symbol: number of the letter or phone that is read.
        state: [width].

    Returns:
        The next state, [width].
    """
    weights = _weights()
    width = len(state)
    given = weights[f"{part}_inputs"][symbol]
    kept = weights[f"{part}_w_hh"] @ state + weights[f"{part}_b_hh"]
    gates = 1 / (1 + np.exp(-(given[: 2 * width] + kept[: 2 * width])))
    reset, update = gates[:width], gates[width:]
    candidate = np.tanh(given[2 * width :] + reset * kept[2 * width :])
    return (1 - update) * candidate + update * state


def guess(word: str) -> str:
    """Return the phones of a word in lower-case letters a to z, in ARPAbet with stress.

    Other characters are read as "unknown".
    """
    weights = _weights()
    state = np.zeros(weights["enc_w_hh"].shape[1], dtype=np.float32)
    for char in word:
        known = "a" <= char <= "z"
        letter = ord(char) - ord("a") + _FIRST_LETTER if known else _UNKNOWN_LETTER
        state = _gru("enc", letter, state)
    state = _gru("enc", _END_OF_LETTERS, state)

    phones: list[str] = []
    symbol = _START
    for _ in range(_MOST_PHONES):
        state = _gru("dec", symbol, state)
        symbol = int(np.argmax(weights["fc_w"] @ state + weights["fc_b"]))
        if symbol == _END:
            break
        if symbol >= _FIRST_PHONE:
            phones.append(_PHONES[symbol - _FIRST_PHONE])
    return " ".join(phones)
