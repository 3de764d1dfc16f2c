"""What a voice on the hub has beside its weights: the model card README.md, and samples to hear."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import soundfile
from huggingface_hub import ModelCardData

from data.shards.manifest import Manifest, read_manifest
from data.text.languages import LANGUAGES
from job.options.export import UNKNOWN
from job.settings.cli import read_config
from job.settings.config import Config
from job.settings.reference.family import VERSION
from job.voice.voice import SpeechRequest, Voice
from trainable.run.format import CONFIG, CheckpointInfo, read_info

CARD = "README.md"
# unless eval.sentences has others
SENTENCES = {
    "ZH": "今天天气真不错。",
    "JP": "今日はいい天気ですね。",
    "EN": "It is a fine day today.",
}


@dataclass(frozen=True)
class Sample:
    """A sentence that the voice has spoken.

    Attributes:
        file: path of its sound below the folder.
        speaker: who speaks.
        language: code of its language.
        text: what is said.
    """

    file: str
    speaker: str
    language: str
    text: str


@dataclass(frozen=True)
class Described:
    """What a card tells.

    Attributes:
        cfg: configuration of the run.
        info: what the checkpoint says of itself.
        manifest: what it was trained on; None if that is out of reach.
    """

    cfg: Config
    info: CheckpointInfo
    manifest: Manifest | None

    @property
    def languages(self) -> list[str]:
        """Codes of the languages that it was trained on; without its data those it can read."""
        if self.manifest is not None:
            return [code for code in LANGUAGES if code in self.manifest.words("language")]
        return [language.code for language in self.cfg.data.bert.languages()]

    @property
    def speakers(self) -> Mapping[str, int]:
        """Name -> row; empty for a voice without a speaker table."""
        return self.info.speakers if self.cfg.model.n_speakers else {}

    def speaker_of(self, language: str) -> str:
        """Return who is trained most on a language; without the data the first in the table."""
        spoken = {}
        if self.manifest is not None:
            spoken = self.manifest.counts("speaker", self.manifest.having("language", language))
        return min(self.speakers, key=lambda name: (-spoken.get(name, 0), self.speakers[name]))


def write_card(
    folder: Path, out: Path, generator: str, licence: str = UNKNOWN, with_samples: bool = True
) -> None:
    """Write the model card of a checkpoint, and what it links to.

    Args:
        folder: folder of the checkpoint.
        out: folder to write to.
        generator: which of GENERATORS speaks.
        licence: the hub's name of a licence.
        with_samples: speak a sentence of each language.

    Raises:
        ValueError: a sentence cannot be spoken, or a BERT model is out of reach.
    """
    info = read_info(folder)
    cfg = read_config(folder / CONFIG)
    told = Described(cfg, info, data_of(cfg, info))
    samples = []
    if with_samples and told.speakers:
        try:
            samples = list(spoken(Voice.load(folder, weights=generator), told, out))
        except (ValueError, OSError) as error:
            raise ValueError(
                f"no samples can be spoken ({error}): --without-samples leaves them out"
            ) from error
    (out / CARD).write_text(card(told, licence, samples), encoding="utf-8")


def data_of(cfg: Config, info: CheckpointInfo) -> Manifest | None:
    """Return the manifest of what a checkpoint was trained on; None if it is not there any more."""
    if not info.manifest:
        return None
    try:
        manifest = read_manifest(cfg.data.shards)
    except (ValueError, OSError):
        return None
    return manifest if manifest.digest == info.manifest else None


def spoken(voice: Voice, told: Described, out: Path) -> Iterator[Sample]:
    """Speak one sentence of each language, and yield what was said."""
    (out / "samples").mkdir()
    sentences = SENTENCES | told.cfg.eval.sentences
    for language in filter(sentences.__contains__, told.languages):
        speaker = told.speaker_of(language)
        sample = Sample(f"samples/{language}.wav", speaker, language, sentences[language])
        wave = voice.say(SpeechRequest(sample.text, speaker, language))
        soundfile.write(out / sample.file, wave, voice.data.sampling_rate, subtype="PCM_16")
        yield sample


def card(told: Described, licence: str, samples: list[Sample]) -> str:
    """Return the text of the card: the hub's metadata, and what people read."""
    metadata = ModelCardData(
        license=licence,
        language=[LANGUAGES[code].iso for code in told.languages],
        pipeline_tag="text-to-speech",
        tags=["bert-vits2"],
    )
    place = told.info.position
    lines = [
        f"---\n{metadata.to_yaml()}\n---",
        f"# A voice of Bert-VITS2 {VERSION}",
        f"Trained for {place.step:,} steps, {place.epoch} epochs; "
        f"{told.cfg.data.sampling_rate:,} Hz. Licence: {licence}.",
        f"Languages: {', '.join(told.languages)}.",
        *speakers_told(told),
        *scores_told(told.info),
        *samples_told(samples),
        "## How to use it",
        "`G_*.safetensors` is the generator; `config.json` has the layout of Bert-VITS2. With "
        "bert-vits2-ray, `REPO` being this model's name or a folder of its files:",
        f"```\npython -m job.synthesize --checkpoint REPO {how_to_speak(told)} --out x.wav\n```",
    ]
    return "\n\n".join(lines) + "\n"


def how_to_speak(told: Described) -> str:
    """Return the options that name a speaker and a text."""
    first = next(iter(sorted(told.speakers, key=told.speakers.__getitem__)), None)
    who = "--reference RECORDING" if first is None else f'--speaker "{first}"'
    return f'{who} --language {told.languages[0]} --text "..."'


def speakers_told(told: Described) -> Iterator[str]:
    """Yield the table of the speakers, with what each was trained on where that is known."""
    if not told.speakers:
        yield "It has no speaker table: it takes a voice from a recording."
        return
    counts = (
        {}
        if told.manifest is None
        else told.manifest.counts("speaker", told.manifest.rows("train"))
    )
    rows = [
        f"| {_cell(name)} | {row} | {counts.get(name, 0) if counts else ''} |"
        for name, row in sorted(told.speakers.items(), key=lambda own: own[1])
    ]
    yield "## Speakers"
    yield "\n".join(["| name | number | utterances |", "|---|---|---|", *rows])


def scores_told(info: CheckpointInfo) -> Iterator[str]:
    """Yield the scores of the checkpoint's validation, or of the last one before it."""
    yield "## Scores"
    if info.scores:
        rows = [f"| {_cell(tag)} | {value:.4g} |" for tag, value in info.scores.items()]
        yield f"Of the validation at step {info.position.step:,}; lower is better."
        yield "\n".join(["| score | value |", "|---|---|", *rows])
    elif known := [own for own in info.validations if own.mel is not None]:
        yield f"eval/mel {known[-1].mel:.4g} at step {known[-1].step:,}."
    else:
        yield "None are known."


def samples_told(samples: list[Sample]) -> Iterator[str]:
    """Yield links to the samples."""
    if samples:
        yield "## Samples"
        yield "\n".join(
            f"- [{own.language}, {_cell(own.speaker)}]({own.file}): {own.text}" for own in samples
        )


def _cell(text: str) -> str:
    """Return a name as a table of Markdown can hold it."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
