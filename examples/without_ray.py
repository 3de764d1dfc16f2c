"""Load, train, save and speak in one process, without Ray: a notebook of cells (`# %%`).

    python -m job.prepare --config job/presets/demo.yaml
    python -m examples.without_ray shards/demo runs/without_ray

The first command makes the shards, with Ray. docs/api.md describes the modules that are used here.
"""

# %% Imports. The arguments are the folder of the shards and the folder to write to.
import sys
from dataclasses import replace
from pathlib import Path

import soundfile
import torch

from data.plan.epoch_plan import Position
from data.shards.manifest import read_manifest
from data.stream.collate import TtsBatch, to_batch
from data.stream.loading import RowLoader
from data.stream.spec import StreamSpec, schedule_of
from job.settings.cli import read_config, to_yaml
from job.voice.voice import SpeechRequest, Voice
from trainable.hardware import set_up_torch
from trainable.learning.state import TrainState, build_networks
from trainable.learning.step import TrainingStep
from trainable.run.checkpoint import load_checkpoint, save_checkpoint
from trainable.run.format import CheckpointInfo, checkpoint_name
from trainable.weights.slm import load_slm

shards = sys.argv[1]
out = Path(sys.argv[2])
out.mkdir(parents=True, exist_ok=True)

# %% The configuration is that of the demo: small networks, 4 micro-batches per global step.
cfg = read_config(Path("job/presets/demo.yaml"))
cfg = replace(cfg, data=replace(cfg.data, shards=shards))
set_up_torch(cfg.train, threads=1, device=torch.device("cpu"))

# %% The manifest lists the utterances, sorted by length. The schedule is their order in the run: a
# pure function of the manifest and these settings. It knows nothing about workers.
manifest = read_manifest(shards)
micro_batches = cfg.train.micro_batches_per_step
segment_frames = cfg.train.segment_size // cfg.data.hop_length
spec = StreamSpec.of_new_run(
    cfg.data, manifest.digest, cfg.train.seed, micro_batches, segment_frames
)
schedule = schedule_of(spec)
print(f"{len(schedule.rows)} utterances, {schedule.plan(epoch=0).steps} global steps per epoch")

# %% A loader reads rows from the shards, decodes and pads them to one micro-batch.
loader = RowLoader(manifest, cfg.data, segment_frames)


def micro_batch(here: Position, slot: int) -> TtsBatch:
    """Load micro-batch `slot` of the global step at a position, with its spectrograms."""
    plan = schedule.plan(here.epoch)
    loaded = loader.load(plan.micro_batch(here.epoch_step, slot))
    if loaded.error:
        raise ValueError(loaded.error)
    return to_batch(loaded.arrays).with_spectrogram(cfg.data)


# %% The networks have initial weights that depend on train.seed alone. The state adds optimizers.
slm = load_slm(cfg.model.slm, cfg.data.sampling_rate)


def new_state() -> TrainState:
    """Return networks with initial weights, and their optimizers."""
    nets = build_networks(cfg.model, cfg.train, cfg.data, slm)
    return TrainState(nets, slm, cfg.model, cfg.train)


# %% Train three global steps. One process takes all micro-batches of a step.
state = new_state()
train_step = TrainingStep(state, cfg.train, cfg.data)
for _ in range(3):
    slots = range(micro_batches)
    report = train_step([(slot, micro_batch(state.position, slot)) for slot in slots])
    state.position = schedule.after(state.position)
    print(f"step {state.position.step}: mel loss {report.scalars['loss/g/mel'].item():.2f}")

# %% Save a checkpoint, and load it into a new state: the weights are the same bits.
folder = out / checkpoint_name(state.position.step)
folder.mkdir()
info = CheckpointInfo(state.position, manifest.digest, "example", {}, manifest.speakers, 1)
save_checkpoint(folder, state, info, to_yaml(cfg))
resumed = new_state()
load_checkpoint(folder, resumed)
assert resumed.digest() == state.digest()
print(f"saved and loaded step {resumed.position.step}")

# %% Speak. Three steps make no voice: this is noise of the length of the sentence.
voice = Voice.load(folder)
wave = voice.say(SpeechRequest("Hello, I am a voice.", sorted(manifest.speakers)[0], "EN"))
soundfile.write(out / "hello.wav", wave, cfg.data.sampling_rate)
print(f"{len(wave) / cfg.data.sampling_rate:.1f} s of sound in {out / 'hello.wav'}")
