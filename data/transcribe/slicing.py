"""Where recordings are cut: at silences, into slices of a wanted length.

All times are seconds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data.settings.asr import AsrConfig

Span = tuple[float, float]
"""Begin and end."""
Quietest = Callable[[float, float], float]
"""Returns the time between two at which speech is least likely."""


@dataclass(frozen=True)
class Slice:
    """A part of a recording.

    Attributes:
        begin: where it begins.
        end: where it ends.
        forced: whether speech goes on at an end of it, as no silence was near.
    """

    begin: float
    end: float
    forced: bool = False


@dataclass
class _Phrase:
    """Speech with silences that are no reason to cut."""

    spans: list[Span]
    forced: bool = False

    @property
    def begin(self) -> float:
        return self.spans[0][0]

    @property
    def end(self) -> float:
        return self.spans[-1][1]

    @property
    def length(self) -> float:
        return self.end - self.begin


def slices_of(
    speech: Sequence[Span], duration: float, cfg: AsrConfig, quietest: Quietest
) -> list[Slice]:
    """Return the slices of a recording, in order; they do not overlap and hold all its speech.

    Args:
        speech: where speech is, in order.
        duration: length of the recording.
        cfg: `pause`, `join_pause`, `margin`, `min_seconds`, `max_seconds`.
        quietest: where to cut what has no silence.
    """
    phrases = _joined(_phrases(speech, cfg.pause), cfg)
    pieces = [piece for phrase in phrases for piece in _pieces(phrase, cfg, quietest)]
    return _with_margins(pieces, duration, cfg.margin)


def _phrases(speech: Sequence[Span], pause: float) -> list[_Phrase]:
    phrases: list[_Phrase] = []
    for span in speech:
        if phrases and span[0] - phrases[-1].end < pause:
            phrases[-1].spans.append(span)
        else:
            phrases.append(_Phrase([span]))
    return phrases


def _joined(phrases: list[_Phrase], cfg: AsrConfig) -> list[_Phrase]:
    """Join short phrases to their nearer neighbours."""
    joined: list[_Phrase] = []
    for index, phrase in enumerate(phrases):
        last = joined[-1] if joined else None
        if last is None or not _fit(last, phrase, cfg):
            joined.append(phrase)
            continue
        following = phrases[index + 1] if index + 1 < len(phrases) else None
        if _is_nearer(phrase, last, following, cfg):
            joined.append(phrase)
        else:
            joined[-1] = _Phrase(last.spans + phrase.spans)
    return joined


def _fit(first: _Phrase, second: _Phrase, cfg: AsrConfig) -> bool:
    """Tell whether two neighbours may be joined: one is short, and they are near."""
    short = min(first.length, second.length) < cfg.min_seconds
    near = second.begin - first.end <= cfg.join_pause
    return short and near and second.end - first.begin <= _longest(cfg)


def _is_nearer(phrase: _Phrase, last: _Phrase, following: _Phrase | None, cfg: AsrConfig) -> bool:
    """Tell whether a phrase is to wait for the one that follows: the one before needs it not."""
    if following is None or last.length < cfg.min_seconds:
        return False
    gap = phrase.begin - last.end
    return _fit(phrase, following, cfg) and following.begin - phrase.end < gap


def _longest(cfg: AsrConfig) -> float:
    """Return the longest phrase that fits into a slice with its margins."""
    return cfg.max_seconds - 2 * cfg.margin


def _pieces(phrase: _Phrase, cfg: AsrConfig, quietest: Quietest) -> list[_Phrase]:
    """Cut a phrase that is too long at its longest silence, until all pieces fit."""
    waiting, done = [phrase], []
    while waiting:
        piece = waiting.pop()
        if piece.length <= _longest(cfg):
            done.append(piece)
            continue
        first, second = _halves(piece, cfg) or _forced(piece, cfg, quietest)
        waiting += [second, first]
    return done


def _halves(phrase: _Phrase, cfg: AsrConfig) -> tuple[_Phrase, _Phrase] | None:
    """Cut a phrase at its longest silence that leaves no short piece; None: it has no such."""
    spans = phrase.spans
    best, place = 0.0, 0
    for index in range(1, len(spans)):
        silence = spans[index][0] - spans[index - 1][1]
        shorter = min(spans[index - 1][1] - phrase.begin, phrase.end - spans[index][0])
        if shorter >= cfg.min_seconds and silence > best:
            best, place = silence, index
    if not place:
        return None
    return _Phrase(spans[:place], phrase.forced), _Phrase(spans[place:], phrase.forced)


def _forced(phrase: _Phrase, cfg: AsrConfig, quietest: Quietest) -> tuple[_Phrase, _Phrase]:
    """Cut a phrase where speech is least likely."""
    longest = _longest(cfg)
    last = min(phrase.begin + longest, phrase.end - cfg.min_seconds)
    at = quietest(max(phrase.begin + longest / 2, phrase.begin + cfg.min_seconds), last)
    before = [(begin, min(end, at)) for begin, end in phrase.spans if begin < at]
    after = [(max(begin, at), end) for begin, end in phrase.spans if end > at]
    return _Phrase(before, True), _Phrase(after, True)


def _with_margins(pieces: Sequence[_Phrase], duration: float, margin: float) -> list[Slice]:
    """Return pieces with silence at both ends; neighbours share what lies between them."""
    slices = []
    for index, piece in enumerate(pieces):
        before = pieces[index - 1].end if index else -piece.begin
        after = pieces[index + 1].begin if index + 1 < len(pieces) else 2 * duration - piece.end
        begin = piece.begin - min(margin, (piece.begin - before) / 2)
        end = piece.end + min(margin, (after - piece.end) / 2)
        slices.append(Slice(begin, end, piece.forced))
    return slices
