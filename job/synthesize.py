"""Hear a voice: `python -m job.synthesize --checkpoint RUN --text T --speaker S --language ZH|JP|EN --out x.wav`."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch

from data.audio import decode_audio, read_audio
from data.bert import BertFeatures
from data.config import LANGUAGES, DataConfig
from data.recipe import bert_features, front_end
from data.spectrogram import spectrogram
from data.text.front_end import expand_word2ph, to_sequence
from job.cli import read_config, run
from trainable.checkpoint import CheckpointInfo, load_weights, read_info
from trainable.networks.synthesizer import SynthesizerTrn
from trainable.state import build_generator
from trainable.storage import fetched, resolve


@dataclass
class Voice:
    """A generator ready to speak, with the front ends and BERT models that it was trained with."""

    g: SynthesizerTrn
    data: DataConfig
    info: CheckpointInfo

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "Voice":
        """Load the generator of a checkpoint.

        Raises:
            CheckpointError: it is damaged.
        """
        info, cfg = read_info(folder), read_config(folder / "config.yaml")
        g = build_generator(cfg.model, cfg.train.segment_size, cfg.data)
        load_weights(folder, "g", g)
        return cls(g.eval().to(device), cfg.data, info)

    @torch.no_grad()
    def say(
        self,
        text: str,
        speaker: str | None,
        language: str,
        *,
        sdp_ratio: float = 0.2,
        noise_scale: float = 0.6,
        noise_scale_w: float = 0.8,
        length_scale: float = 1.0,
        seed: int = 0,
        reference: np.ndarray | None = None,
    ) -> np.ndarray:
        """Speak a text.

        Args:
            text: in `language`.
            speaker: a name of the training data; none for a voice without a speaker table.
            language: of LANGUAGES.
            sdp_ratio: share of the stochastic duration predictor, 0 to 1.
            noise_scale: variation of the sound.
            noise_scale_w: variation of the rhythm.
            length_scale: above 1 slower, below 1 faster.
            seed: equal seeds give equal audio.
            reference: for a voice without a speaker table, a recording [samples] of the speaker at data.sampling_rate.

        Returns:
            Waveform, float32 [samples], at data.sampling_rate.

        Raises:
            ValueError: an unknown speaker or language, or a text that the front end cannot read.
        """
        if self.g.n_speakers == 0 and reference is None:
            raise ValueError("this voice has no speaker table: give a recording of the speaker (--reference)")
        if self.g.n_speakers > 0 and speaker not in self.info.speakers:
            raise ValueError(f"no speaker {speaker!r}; this voice has: {', '.join(sorted(self.info.speakers))}")
        if language not in LANGUAGES:
            raise ValueError(f"no language {language!r}; choose of {', '.join(LANGUAGES)}")
        bert: BertFeatures = bert_features(self.data, language)
        phonemes = front_end(self.data, language)(text)
        features = bert([phonemes])[0]
        device = next(self.g.parameters()).device
        x, tone, language_ids = (
            torch.from_numpy(ids)[None].to(device)
            for ids in to_sequence(phonemes.phones, phonemes.tones, language, self.data.add_blank)
        )
        index = expand_word2ph(phonemes.word2ph, self.data.add_blank)
        active = torch.from_numpy(features.astype(np.float32)[index].T.copy())[None].to(device)
        torch.manual_seed(seed)
        inactive = torch.randn_like if self.data.bert.inactive == "noise" else torch.zeros_like  # as in the training
        zh, jp, en = (active if language == own else inactive(active) for own in LANGUAGES)
        stft = (self.data.filter_length, self.data.hop_length, self.data.win_length)
        y = None if reference is None else spectrogram(torch.from_numpy(reference)[None].to(device), *stft)
        out = self.g.infer(
            x,
            torch.tensor([x.shape[1]], device=device),
            torch.tensor([self.info.speakers.get(speaker or "", 0)], device=device),
            tone,
            language_ids,
            zh,
            jp,
            en,
            sdp_ratio=sdp_ratio,
            noise_scale=noise_scale,
            noise_scale_w=noise_scale_w,
            length_scale=length_scale,
            y=y,
        )
        return out.o[0, 0].float().cpu().numpy()


def main(argv: Sequence[str]) -> int:
    """The command."""
    made = argparse.ArgumentParser(prog="python -m job.synthesize", description="Speak a text with a trained voice.")
    made.add_argument("--checkpoint", required=True, help="a checkpoint, a run (its newest one) or RUN/best")
    made.add_argument("--text", required=True)
    made.add_argument("--speaker", help="a name of the training data")
    made.add_argument("--reference", help="a recording of the speaker, for a voice without a speaker table")
    made.add_argument("--language", required=True, choices=LANGUAGES)
    made.add_argument("--out", required=True, type=Path, help="a .wav or .flac file")
    made.add_argument("--sdp_ratio", type=float, default=0.2, help="share of the stochastic duration predictor")
    made.add_argument("--noise_scale", type=float, default=0.6, help="variation of the sound")
    made.add_argument("--noise_scale_w", type=float, default=0.8, help="variation of the rhythm")
    made.add_argument("--length_scale", type=float, default=1.0, help="above 1 slower, below 1 faster")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = made.parse_args(argv)
    with fetched(resolve(args.checkpoint)) as folder:
        voice = Voice.load(folder, args.device)
        wave = voice.say(
            args.text, args.speaker, args.language,
            sdp_ratio=args.sdp_ratio, noise_scale=args.noise_scale, noise_scale_w=args.noise_scale_w,
            length_scale=args.length_scale, seed=args.seed,
            reference=args.reference and decode_audio(read_audio(args.reference), voice.data),
        )  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(args.out, wave, voice.data.sampling_rate, subtype="PCM_16")
    seconds = len(wave) / voice.data.sampling_rate
    print(f"{args.out}: {seconds:.2f} s by {args.speaker or args.reference}, step {voice.info.position.step}")
    return 0


if __name__ == "__main__":
    run(main)
