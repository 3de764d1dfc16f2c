"""The report of an evaluation: one HTML page with sounds and pictures in it, without scripts, for any browser."""

import base64
import html
import io
from collections.abc import Mapping, Sequence

import numpy as np
import soundfile
from matplotlib.image import imsave

from trainable.run.plots import alignment_image, line_plot, spectrogram_image

_STYLE = """
body { font: 14px sans-serif; margin: 2em } table { border-collapse: collapse; margin: 1em 0 }
td, th { padding: 2px 8px; text-align: right; font-variant-numeric: tabular-nums; border-bottom: 1px solid #ddd }
td:first-child, th:first-child { text-align: left } .pair { display: flex; flex-wrap: wrap; gap: 1em }
figure { margin: 0 } figure img { max-width: 100%; width: 40em } figcaption { font-size: 12px; color: #555 }
"""
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
    "vuv_error": "share of frames voiced in one of both alone",
    "duration_ratio": "length to the recording's",
}


def report_page(content: Mapping, samples: Sequence[Mapping], sampling_rate: int) -> str:
    """The page.

    Args:
        content: of evaluation.json (job.evaluate).
        samples: of trainable.evaluation.evaluate.Evaluation.
        sampling_rate: Hz of their sounds.
    """
    title = f"Step {content['step']} on the {content['split']} set"
    parts = [
        f"<h1>{_text(title)}</h1>",
        f"<p>{_text(content['checkpoint'])}, weights {_text(content['weights'])}</p>",
        f"<p>{_text('; '.join(f'{tag}: {what}' for tag, what in _EXPLAINED.items()))}. "
        "_sdp: with the stochastic duration predictor alone; otherwise with the other.</p>",
        _table("", content["scores"]),
        _history(content["history"]),
        "<h2>Heard and seen</h2>",
        *(
            _sample(sample, content["utterances"][sample["number"]], sampling_rate)
            for sample in samples
        ),
        "<h2>Utterances</h2>",
        _table("id", {u["id"]: u["scores"] for u in content["utterances"]}),
    ]
    head = f'<meta charset="utf-8"><title>{_text(title)}</title><link rel="icon" href="data:,"><style>{_STYLE}</style>'
    return f"<!doctype html><html><head>{head}</head><body>{''.join(parts)}</body></html>\n"


def _sample(sample: Mapping, utterance: Mapping, sampling_rate: int) -> str:
    number = sample["number"]
    who = " · ".join(utterance[key] for key in ("id", "speaker", "language"))
    sounds = [
        f'<figure><figcaption>{name}</figcaption><audio controls src="{_sound(wave, sampling_rate)}"></audio></figure>'
        for tag, name in _SOUNDS.items()
        if (wave := sample["audio"].get(tag.format(number))) is not None
    ]
    pictures = [
        _picture("mel of the recording", spectrogram_image(sample["mels"][f"gt/mel_{number}"])),
        _picture("mel of the synthesis", spectrogram_image(sample["mels"][f"gen/mel_{number}"])),
        _picture(
            "alignment of the synthesis",
            alignment_image(sample["alignments"][f"gen/attn_{number}"]),
        ),
    ]
    return (
        f'<section id="utterance-{number}"><h3>{_text(who)}</h3><div class="pair">{"".join(sounds)}</div>'
        f'<div class="pair">{"".join(pictures)}</div></section>'
    )


def _history(validations: Sequence[Mapping]) -> str:
    """Both sets' mel loss over the run."""
    known = [v for v in validations if v["mel"] is not None and v["train_mel"] is not None]
    if not known:
        return ""
    lines = {"validation": [v["mel"] for v in known], "training": [v["train_mel"] for v in known]}
    return _picture(
        "mel L1 over the run", line_plot([v["step"] for v in known], lines, "step", "mel L1")
    )


def _table(corner: str, rows: Mapping[str, Mapping[str, float | None]]) -> str:
    tags = list(dict.fromkeys(tag for of in rows.values() for tag in of))
    head = "".join(f"<th>{_text(name)}</th>" for name in (corner, *tags))
    body = (
        f"<tr><td>{_text(name)}</td>{''.join(f'<td>{_number(of.get(tag))}</td>' for tag in tags)}</tr>"
        for name, of in rows.items()
    )
    return f"<table><tr>{head}</tr>{''.join(body)}</table>"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _sound(wave: np.ndarray, sampling_rate: int) -> str:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(wave, -1, 1), sampling_rate, format="WAV", subtype="PCM_16")
    return f"data:audio/wav;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _picture(caption: str, image: np.ndarray) -> str:
    buffer = io.BytesIO()
    imsave(buffer, np.ascontiguousarray(image), format="png")
    source = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return (
        f'<figure><img alt="{caption}" src="{source}"><figcaption>{caption}</figcaption></figure>'
    )


def _text(value: str) -> str:
    return html.escape(value)
