"""Fixed sentences that are spoken at each validation, to be heard as the voice grows."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data.bert.reading import Reading, TextReader
from data.config import BertConfig, DataConfig
from data.shards.manifest import Manifest
from data.stream.collate import features_of_phones
from data.stream.inputs import TextInputs
from data.text.languages import LANGUAGES
from data.text.marked import Part
from trainable.networks.generator.synthesizer import SynthesizerTrn


@dataclass(frozen=True)
class Sentence:
    """A sentence that has been read.

    Attributes:
        tag: tag of its sound in TensorBoard.
        text: what it says.
        reading: what its text reads as.
        speaker: row of the speaker table.
    """

    tag: str
    text: str
    reading: Reading
    speaker: int


def read_sentences(
    sentences: Mapping[str, str], data: DataConfig, manifest: Manifest
) -> list[Sentence]:
    """Read the sentences once, with the preparation's front ends and BERT models.

    Args:
        sentences: language -> text.
        data: names the models.
        manifest: manifest of the training data; a language is spoken by the speaker who has most
            utterances of it.

    Raises:
        ValueError: names the language that nobody speaks, or whose text cannot be read.
    """
    reader = TextReader(data)
    found = []
    for language, text in sentences.items():
        spoken = manifest.counts("speaker", manifest.having("language", language))
        if not spoken:
            known = ", ".join(own for own in LANGUAGES if own in manifest.words("language"))
            raise ValueError(
                f"eval.sentences.{language}: no utterance is in this language; there are {known}"
            )
        # of speakers with as many utterances the first by name, on every start alike
        speaker = min(spoken, key=lambda name: (-spoken[name], name))
        try:
            reading = reader([Part(language, text)])
        except ValueError as error:
            raise ValueError(f"eval.sentences.{language} cannot be read: {error}") from error
        found.append(
            Sentence(f"sentence/{language}_{speaker}", text, reading, manifest.speakers[speaker])
        )
    return found


@torch.no_grad()
def speak(
    g: SynthesizerTrn, sentence: Sentence, cfg: BertConfig, seed: int, max_frames: int
) -> np.ndarray:
    """Speak a sentence, with the same random draws each time.

    Args:
        g: the generator; in training mode again on return.
        sentence: what is spoken.
        cfg: data.bert.
        seed: seed of the draws.
        max_frames: longest sound.

    Returns:
        Waveform, float32 [samples].
    """
    device = next(g.parameters()).device
    reading = sentence.reading

    def one(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array)[None].to(device)

    torch.manual_seed(seed)
    text = TextInputs(
        x=one(reading.x),
        x_lengths=torch.tensor([len(reading.x)], device=device),
        tone=one(reading.tone),
        language=one(reading.language),
        bert=features_of_phones(
            one(reading.bert), one(reading.token_index), one(reading.spoken), cfg
        ),
        sid=torch.tensor([sentence.speaker], device=device),
    )
    g.eval()
    prior = g.plan(text, sdp_ratio=0.2)
    out = g.render(prior.limited(max_frames))
    g.train()
    return out.o[0, 0].float().cpu().numpy()
