"""The report of an evaluation: what evaluation.json holds, and the page that shows and plays it."""

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import soundfile

from data.config import DataConfig
from data.files import below
from data.html_page import (
    Html,
    Tile,
    drawing,
    element,
    filter_box,
    link,
    marked,
    page,
    picture,
    section,
    sound,
    table,
    tensorboard,
    tiles,
)
from data.shards.manifest import Manifest
from job.reports.plots import alignment, curves, mel_pair, svg
from job.reports.scores import KNOWN
from trainable.evaluation.evaluate import Evaluation
from trainable.run.format import CONFIG

OVERALL = "all"
_SOUNDS = {
    "gt/audio_{}": "recording",
    "gen/audio_{}_False": "synthesis",
    "gen/audio_{}_True": "synthesis, stochastic durations",
}
_SDP = "_sdp"
_MARKED_FROM = 0.05  # relative difference from the mean that is marked
_WORST_BY = ("mcd", "mel")


def group_means(
    evaluation: Evaluation, rows: np.ndarray, manifest: Manifest
) -> dict[str, dict[str, float]]:
    """Return means over all utterances, each language and each speaker: group -> tag -> mean.

    Args:
        evaluation: scores of each utterance.
        rows: their rows of the manifest, in the same order.
        manifest: the data.
    """
    found = {OVERALL: evaluation.means("")}
    for column in ("language", "speaker"):
        names = np.asarray(manifest.values(column, rows), object)
        for name in sorted(set(names)):
            members = Evaluation(evaluation.tags, evaluation.table[names == name])
            found[f"{column} {name}"] = members.means("")
    return found


def utterance_scores(
    evaluation: Evaluation, rows: np.ndarray, manifest: Manifest
) -> list[dict[str, Any]]:
    """Return number, id, speaker, language and scores of each utterance.

    A score that an utterance does not have is None.

    Args:
        evaluation: scores of each utterance.
        rows: their rows of the manifest, in the same order.
        manifest: the data.
    """
    found = []
    columns = ("id", "speaker", "language")
    known = list(zip(*(manifest.values(name, rows) for name in columns), strict=True))
    for number, (told, values) in enumerate(zip(known, evaluation.table.tolist(), strict=True)):
        who = dict(zip(columns, told, strict=True))
        scores = {
            tag: None if np.isnan(value) else value
            for tag, value in zip(evaluation.tags, values, strict=True)
        }
        found.append({"number": number, **who, "scores": scores})
    return found


def score_columns(
    scores: Mapping[str, Mapping[str, float | None]],
) -> tuple[list[str], list[list[Any]]]:
    """Return scores of named groups as the tags, and rows of a name and a score per tag.

    A score that a group does not have is None.
    """
    tags = list(dict.fromkeys(tag for group in scores.values() for tag in group))
    return tags, [[name, *(group.get(tag) for tag in tags)] for name, group in scores.items()]


def report_page(content: Mapping, samples: Sequence[Mapping], data: DataConfig, out: str) -> str:
    """Return the page.

    Args:
        content: content of evaluation.json (job.evaluate).
        samples: samples of the Evaluation.
        data: the configuration of their sounds and frames.
        out: folder or URI of the page.
    """
    checkpoint = content["checkpoint"]
    run = checkpoint.rpartition("/")[0]
    utterances = content["utterances"]
    return page(
        f"{run.rpartition('/')[2]}, step {content['step']}",
        _body(content, samples, data),
        kind="Evaluation",
        lead=f"{len(utterances)} utterances of the {content['split']} set, weights "
        f"{content['weights']}; smaller scores are better, a length of 1 is best",
        links=(
            link("checkpoint", checkpoint, out),
            link("configuration", below(checkpoint, CONFIG), out),
            element("a", "evaluation.json", href="evaluation.json"),
            tensorboard(run),
        ),
    )


def _body(content: Mapping, samples: Sequence[Mapping], data: DataConfig) -> Iterator[Html]:
    utterances = content["utterances"]
    means = content["scores"][OVERALL]
    yield tiles([_tile(tag, means[tag], content["history"]) for tag in KNOWN if tag in means])
    yield _history(content["history"])

    ranked = sorted(samples, key=lambda sample: -_badness(utterances[sample["number"]]["scores"]))
    cards = [_sample(sample, utterances[sample["number"]], means, data) for sample in ranked]
    yield section(
        "Heard and seen",
        filter_box("Show only") if cards else "",
        *cards,
        note="The worst one first. Both spectrograms of a pair have one scale of colour and time.",
    )

    groups = {name: scores for name, scores in content["scores"].items() if name != OVERALL}
    yield section(
        "Languages and speakers",
        _score_table("", [[name] for name in groups], list(groups.values()), means),
        note=_LEGEND,
    )
    worst = sorted(utterances, key=lambda utterance: -_badness(utterance["scores"]))
    who = [[utterance[key] for key in ("id", "speaker", "language")] for utterance in worst]
    yield section(
        "Utterances",
        filter_box("Show only"),
        _score_table(("id", "speaker", "language"), who, [each["scores"] for each in worst], means),
        note=f"The worst one first. {_LEGEND}",
    )


_LEGEND = (
    "▲ better and ▼ worse than the mean of all by a twentieth or more. _sdp: with the stochastic "
    "duration predictor alone. A click on a head sorts."
)


def _badness(scores: Mapping[str, float | None]) -> float:
    """Return what utterances are ordered by; those without a score come last."""
    found = (scores.get(tag) for tag in _WORST_BY)
    return next((score for score in found if score is not None), -math.inf)


def _tile(tag: str, value: float, history: Sequence[Mapping]) -> Tile:
    """Return a score of all utterances, beside the best one of the run's other validations."""
    score = KNOWN[tag]
    earlier = [(found, v["step"]) for v in history if (found := _remembered(v, tag)) is not None]
    if not earlier:
        return Tile(score.name, f"{value:.3f}", score.unit, score.meaning)
    best, step = min(earlier)
    told = f"best of the run: {best:.3f} at step {step}"
    if math.isclose(value, best, rel_tol=1e-4):
        return Tile(score.name, f"{value:.3f}", score.unit, f"▲ {told}", "better")
    mark = "better" if value < best else "worse"
    sign = {"better": "▲", "worse": "▼"}[mark]
    return Tile(score.name, f"{value:.3f}", score.unit, f"{sign} {told}", mark)


def _remembered(validation: Mapping, tag: str) -> float | None:
    """Return a validation's score, as far as checkpoints remember it."""
    if validation["ranks_by"] == f"eval/{tag}":
        return validation["score"]
    return validation.get(tag)


def _score_table(
    corner: str | Sequence[str],
    names: Sequence[Sequence[str]],
    scores: Sequence[Mapping[str, float | None]],
    means: Mapping[str, float],
) -> Html:
    """Return a table of scores, marked where they differ from the means."""
    if not scores:
        return Html()
    tags = list(dict.fromkeys(tag for group in scores for tag in group))
    rows = [
        [*name, *(_compared(tag, group.get(tag), means.get(tag)) for tag in tags)]
        for name, group in zip(names, scores, strict=True)
    ]
    first = [corner] if isinstance(corner, str) else list(corner)
    return table([*first, *map(_head, tags)], rows, absent="-", sortable=True)


def _head(tag: str) -> str:
    """Return a column's title: the tag with its unit."""
    score = KNOWN.get(tag.removesuffix(_SDP))
    return f"{tag}, {score.unit}" if score is not None and score.unit else tag


def _compared(tag: str, value: float | None, mean: float | None) -> Html | None:
    """Return a score, marked if it is better or worse than the mean."""
    if value is None:
        return None
    return marked(f"{value:.4f}", _mark(tag, value, mean))


def _mark(tag: str, value: float, mean: float | None) -> str:
    score = KNOWN.get(tag.removesuffix(_SDP))
    # whether more is better is not known of a user's own scorers
    if score is None or mean is None:
        return ""
    own, others = abs(value - score.ideal), abs(mean - score.ideal)
    if abs(own - others) < _MARKED_FROM * abs(mean):
        return ""
    return "better" if own < others else "worse"


def _history(validations: Sequence[Mapping]) -> Html:
    """Return a plot of both sets' mel loss over the run, if it was validated twice."""
    known = [v for v in validations if v["mel"] is not None and v["train_mel"] is not None]
    if len(known) < 2:
        return Html()
    steps = [v["step"] for v in known]
    lines = {
        "validation": (steps, [v["mel"] for v in known]),
        "training": (steps, [v["train_mel"] for v in known]),
    }
    name = "mel L1 over the run's steps"
    drawn = svg(curves(lines, "global step", "mel L1"), name)
    return section("The run", drawing(name, drawn))


def _sample(
    sample: Mapping, utterance: Mapping, means: Mapping[str, float], data: DataConfig
) -> Html:
    """Return text, scores, sounds and pictures of an utterance."""
    number = sample["number"]
    frame = data.hop_length / data.sampling_rate
    waves = {name: sample["audio"].get(tag.format(number)) for tag, name in _SOUNDS.items()}
    sounds = [
        sound(name, _wav(wave, data.sampling_rate))
        for name, wave in waves.items()
        if wave is not None
    ]
    mels = {
        "recording": sample["mels"][f"gt/mel_{number}"],
        "synthesis": sample["mels"][f"gen/mel_{number}"],
    }
    pictures = [
        picture("mel spectrograms", mel_pair(mels, frame)),
        picture("alignment", alignment(sample["alignments"][f"gen/attn_{number}"], frame)),
    ]
    who = " · ".join(utterance[key] for key in ("id", "speaker", "language"))
    known = {tag: score for tag, score in utterance["scores"].items() if score is not None}
    scores = [
        element("span", f"{KNOWN[tag].name} ", _compared(tag, known[tag], means.get(tag)))
        for tag in KNOWN
        if tag in known
    ]
    return element(
        "article",
        element("h3", who),
        element("p", sample["text"], class_="said"),
        element("p", *scores, class_="row note"),
        element("div", *sounds, class_="row"),
        element("div", *pictures, class_="row pictures"),
        id=f"utterance-{number}",
        data_words=f"{who} {sample['text']}",
    )


def _wav(wave: np.ndarray, sampling_rate: int) -> bytes:
    """Return a waveform, float [samples], as a WAV file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(wave, -1, 1), sampling_rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
