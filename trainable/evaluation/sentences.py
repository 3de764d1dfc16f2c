"""Fixed sentences that are spoken at each validation, to be heard as the voice grows."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from data.bert.reading import Reading, TextReader
from data.config import LANGUAGES, DataConfig
from data.shards.manifest import Manifest
from data.stream.collate import features_of_phones
from data.text.marked import Part
from trainable.networks.generator.synthesizer import SynthesizerTrn


@dataclass(frozen=True)
class Sentence:
    """A sentence that has been read.

    Attributes:
        tag: of its sound.
        reading: of its text.
        speaker: row of the speaker table.
    """

    tag: str
    reading: Reading
    speaker: int


def read_sentences(
    sentences: Mapping[str, str], data: DataConfig, manifest: Manifest
) -> list[Sentence]:
    """Read them once, with the front ends and BERT models of the preparation, which are needed no longer on return.

    Args:
        sentences: language -> text.
        data: names the models.
        manifest: of the training data; a language is spoken by the speaker who has most utterances
            of it.

    Raises:
        ValueError: names the language that nobody speaks, or whose text cannot be read.
    """
    reader, found = TextReader(data), []
    languages, speakers = manifest.column("language"), manifest.column("speaker")
    for language, text in sentences.items():
        spoken = Counter(speakers[languages == language].tolist())
        if not spoken:
            raise ValueError(
                f"eval.sentences.{language}: no utterance is in this language; there are "
                f"{', '.join(own for own in LANGUAGES if own in languages)}"
            )
        speaker = min(spoken, key=lambda name: (-spoken[name], name))
        try:
            reading = reader([Part(language, text)])
        except ValueError as error:
            raise ValueError(f"eval.sentences.{language} cannot be read: {error}") from error
        found.append(
            Sentence(f"sentence/{language}_{speaker}", reading, manifest.speakers[speaker])
        )
    return found


@torch.no_grad()
def speak(
    g: SynthesizerTrn, sentence: Sentence, inactive: str, seed: int, max_frames: int
) -> np.ndarray:
    """Speak a sentence, with the same random draws each time: waveform, float32 [samples].

    Args:
        g: the generator; in training mode again on return.
        sentence: what is spoken.
        inactive: data.bert.inactive.
        seed: of the draws.
        max_frames: longest sound.
    """
    device, reading = next(g.parameters()).device, sentence.reading
    x, tone, language, bert, token_index, spoken = (
        torch.from_numpy(array)[None].to(device)
        for array in (
            reading.x,
            reading.tone,
            reading.language,
            reading.bert,
            reading.token_index,
            reading.spoken,
        )
    )
    lengths, speaker = (
        torch.tensor([x.shape[1]], device=device),
        torch.tensor([sentence.speaker], device=device),
    )
    torch.manual_seed(seed)
    zh, jp, en = features_of_phones(bert, token_index, spoken, inactive)
    g.eval()
    prior = g.plan(x, lengths, speaker, tone, language, zh, jp, en, sdp_ratio=0.2)
    out = g.render(prior.limited(max_frames))
    g.train()
    return out.o[0, 0].float().cpu().numpy()
