"""The folder for Style-Bert-VITS2: that package loads it, and speaks the same samples."""

import json
import os
import subprocess
import sys
import venv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from data.plan.epoch_plan import Position
from job import export as export_command
from job import synthesize
from job.settings.cli import to_yaml
from job.settings.config import Config
from job.voice.source import opened
from job.voice.voice import SpeechRequest, Voice
from tests.job.voices import tiny_voice_config
from tests.tiny import tiny_state
from tests.trainable.networks.tiny import randomise
from trainable.run.checkpoint import save_checkpoint
from trainable.run.format import CheckpointInfo

PACKAGE = "style-bert-vits2==2.5.0"
TEXT = "今天天气真不错。"
SPEAKERS = {"zh": 2, "anna": 0}
SEED = 3
WIDTH = 1024  # of BERT features, which its networks have no setting for
# What a user of the package writes. Its noise is torch's, as ours is; it fills a transposed tensor,
# and here another order of the same numbers.
SPEAKS = """
import sys
from pathlib import Path
import numpy as np
import torch
from style_bert_vits2.constants import Languages
from style_bert_vits2.models.hyper_parameters import HyperParameters
from style_bert_vits2.models.infer import get_net_g, infer
from style_bert_vits2.nlp import bert_models
from style_bert_vits2.tts_model import TTSModelHolder

torch.randn_like = lambda other: torch.randn(other.shape)
models, bert, text, seed, speaker, out = sys.argv[1:]
bert_models.load_model(Languages.ZH, bert)
bert_models.load_tokenizer(Languages.ZH, bert)
holder = TTSModelHolder(Path(models), "cpu")
[name] = holder.model_names
model = holder.get_model(name, str(holder.model_files_dict[name][0]))
row = model.spk2id[speaker]
model.load()
torch.manual_seed(int(seed))
rate, played = model.infer(text, Languages.ZH, speaker_id=row)
hps = model.hyper_parameters
net = get_net_g(str(model.model_path), hps.version, "cpu", hps)
torch.manual_seed(int(seed))
style = np.load(model.style_vec_path)[model.style2id["Neutral"]]
wave = infer(text, style, 0.2, 0.6, 0.8, 1.0, row, Languages.ZH, hps, net, "cpu")
np.savez(out, rate=rate, played=played, wave=wave)
"""


def config(folder: Path, **model) -> Config:
    cfg = tiny_voice_config(folder)
    sized = {
        "bert_channels": WIDTH,
        "n_flow_layer": 4,
        "n_layers_trans_flow": 4,
        "resblock_dilation_sizes": ((1, 3, 5),),
    } | model
    bert = replace(cfg.data.bert, random_width=WIDTH)
    return replace(cfg, model=replace(cfg.model, **sized), data=replace(cfg.data, bert=bert))


def checkpoint(folder: Path, cfg: Config) -> Path:
    made = folder / "run/checkpoint_000000007"
    made.mkdir(parents=True)
    state = tiny_state(cfg)
    randomise(state.nets["g"], 0.05)
    state.position = Position(7, 2, 1)
    info = CheckpointInfo(state.position, "", "", {}, SPEAKERS, 1)
    save_checkpoint(made, state, info, to_yaml(cfg))
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A checkpoint, and the folder of models/voice that job.export makes of it."""
    folder = tmp_path_factory.mktemp("sbv2")
    source = checkpoint(folder, config(folder))
    argv = ["--checkpoint", str(source), "--format", "sbv2", "--out", str(folder / "models/voice")]
    assert export_command.main(argv) == 0
    return folder


@pytest.mark.medium
def test_its_folder_is_complete(made, tmp_path):
    folder = made / "models/voice"
    names = {"config.json", "G_7.safetensors", "style_vectors.npy"}
    assert {path.name for path in folder.iterdir()} == names
    weights = load_file(folder / "G_7.safetensors")
    assert not weights["enc_p.style_proj.weight"].any()
    assert not weights["enc_p.style_proj.bias"].any()
    described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert described["data"]["spk2id"] == SPEAKERS
    assert not described["version"].endswith("JP-Extra")
    assert np.load(folder / "style_vectors.npy").shape == (1, 256)
    # it is for that package alone, and says so
    argv = ["--speaker", "zh", "--language", "ZH", "--text", TEXT, "--out", str(tmp_path / "x.wav")]
    with pytest.raises(ValueError, match=r"data\.use_jp_extra is a key of Style-Bert-VITS2 2"):
        synthesize.main(["--checkpoint", str(folder), *argv])


@pytest.mark.medium
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_transformer_flow": False}, r"model\.use_transformer_flow is False; there it is"),
        ({"resblock_dilation_sizes": ((1, 3),)}, r"model\.resblock_dilation_sizes: .* 3 dilations"),
        ({"n_flow_layer": 2}, r"model\.n_flow_layer is 2; there it is always 4"),
        ({"n_speakers": 0, "use_spk_conditioned_encoder": False}, r"model\.n_speakers is 0; there"),
        ({"bert_channels": 32}, r"model\.bert_channels is 32; the reference's networks take 1024"),
    ],
)
def test_networks_that_it_cannot_build_are_refused(change, message, tmp_path):
    source = checkpoint(tmp_path, config(tmp_path, **change))
    argv = ["--checkpoint", str(source), "--format", "sbv2", "--out", str(tmp_path / "out")]
    with pytest.raises(ValueError, match=message):
        export_command.main(argv)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """The interpreter of a throw-away environment: this one's packages below the package's own."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python = folder / "bin/python"
    here = [path for path in sys.path if path.endswith("site-packages")]
    [own] = folder.glob("lib/python*/site-packages")
    (own / "shared.pth").write_text("\n".join(here))
    installed = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", PACKAGE],
        capture_output=True,
        text=True,
    )
    if installed.returncode:
        pytest.skip(f"{PACKAGE} cannot be installed here: {installed.stderr[-300:]}")
    return python


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.timeout(900)
@pytest.mark.parametrize("speaker", SPEAKERS)
def test_style_bert_vits2_speaks_the_same_samples(speaker, made, package, tmp_path):
    with opened(str(made / "run/checkpoint_000000007")) as folder:
        voice = Voice.load(folder)
    ours = voice.say(SpeechRequest(TEXT, speaker, "ZH", seed=SEED))
    bert = made / f"shards/bert/ZH-{WIDTH}"
    out = tmp_path / "there.npz"
    given = map(str, (made / "models", bert, TEXT, SEED, speaker, out))
    subprocess.run(
        [package, "-c", SPEAKS, *given],
        check=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    there = np.load(out)
    assert there["rate"] == voice.data.sampling_rate
    assert there["wave"].shape == ours.shape
    assert np.abs(ours).max() > 1e-3
    difference = np.abs(there["wave"] - ours).max()
    print(f"largest difference {difference:.2g}")
    assert difference <= 1e-6
    # what it plays: 16 bits, as loud as they allow
    scaled = (ours / np.abs(ours).max() * 32767).astype(np.int16)
    assert np.abs(there["played"].astype(int) - scaled).max() <= 1
