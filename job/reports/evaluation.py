"""The report of an evaluation: what evaluation.json holds, and the page that shows and plays it."""

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import soundfile

from data.html_page import Html, element, page, picture, sound, table
from data.plots import alignment_image, line_plot, spectrogram_image
from data.shards.manifest import Manifest
from job.reports.plots import image_png
from trainable.evaluation.evaluate import Evaluation

OVERALL = "all"
_SOUNDS = {
    "gt/audio_{}": "recording",
    "gen/audio_{}_False": "synthesis",
    "gen/audio_{}_True": "synthesis, stochastic",
}
_EXPLAINED = {
    "mel": "mel L1 with teacher forcing",
    "kl": "KL divergence",
    "dur": "duration loss",
    "mcd": "mel-cepstral distortion, dB",
    "log_f0_rmse": "RMSE of the logarithm of the pitch",
    "vuv_error": "share of frames voiced in only one of both",
    "duration_ratio": "length relative to the recording's",
}


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


def report_page(content: Mapping, samples: Sequence[Mapping], sampling_rate: int) -> str:
    """Return the page.

    Args:
        content: content of evaluation.json (job.evaluate).
        samples: samples of the Evaluation.
        sampling_rate: sampling rate of their sounds, Hz.
    """
    title = f"Step {content['step']} on the {content['split']} set"
    return page(title, _body(content, samples, sampling_rate))


def _body(content: Mapping, samples: Sequence[Mapping], sampling_rate: int) -> Iterator[Html]:
    yield element("p", f"{content['checkpoint']}, weights {content['weights']}")
    explained = "; ".join(f"{tag}: {meaning}" for tag, meaning in _EXPLAINED.items())
    yield element(
        "p",
        f"{explained}. _sdp: with the stochastic duration predictor alone; "
        "otherwise with the other.",
    )
    yield _score_table("", content["scores"])
    yield from _history(content["history"])

    yield element("h2", "Heard and seen")
    for sample in samples:
        yield _sample(sample, content["utterances"][sample["number"]], sampling_rate)

    yield element("h2", "Utterances")
    by_id = {utterance["id"]: utterance["scores"] for utterance in content["utterances"]}
    yield _score_table("id", by_id)


def _score_table(corner: str, scores: Mapping[str, Mapping[str, float | None]]) -> Html:
    tags, rows = score_columns(scores)
    return table([corner, *tags], rows, floats=".4f", absent="-")


def _history(validations: Sequence[Mapping]) -> Iterator[Html]:
    """Yield a plot of both sets' mel loss over the run, if it was validated."""
    known = [v for v in validations if v["mel"] is not None and v["train_mel"] is not None]
    if not known:
        return
    steps = [v["step"] for v in known]
    lines = {"validation": [v["mel"] for v in known], "training": [v["train_mel"] for v in known]}
    plot = line_plot(steps, lines, "step", "mel L1")
    yield picture("mel L1 over the run", image_png(plot))


def _sample(sample: Mapping, utterance: Mapping, sampling_rate: int) -> Html:
    """Return sounds and pictures of an utterance."""
    number = sample["number"]
    waves = {name: sample["audio"].get(tag.format(number)) for tag, name in _SOUNDS.items()}
    sounds = [
        sound(name, _wav(wave, sampling_rate)) for name, wave in waves.items() if wave is not None
    ]
    images = {
        "mel of the recording": spectrogram_image(sample["mels"][f"gt/mel_{number}"]),
        "mel of the synthesis": spectrogram_image(sample["mels"][f"gen/mel_{number}"]),
        "alignment of the synthesis": alignment_image(sample["alignments"][f"gen/attn_{number}"]),
    }
    pictures = [picture(caption, image_png(image)) for caption, image in images.items()]
    who = " · ".join(utterance[key] for key in ("id", "speaker", "language"))
    return element(
        "section",
        element("h3", who),
        element("div", *sounds, class_="row"),
        element("div", *pictures, class_="row"),
        id=f"utterance-{number}",
    )


def _wav(wave: np.ndarray, sampling_rate: int) -> bytes:
    """Return a waveform, float [samples], as a WAV file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(wave, -1, 1), sampling_rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
