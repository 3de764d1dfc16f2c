"""The reference trainer's config.json for a configuration of ours, so that its tools load our voices."""

from collections.abc import Mapping
from typing import Any

from job.config import Config

VERSION = "2.3"  # of Bert-VITS2: its networks, symbols and files
BERT_CHANNELS = 1024  # fixed in its text encoder
SHARED = (
    "use_spk_conditioned_encoder", "use_noise_scaled_mas", "use_duration_discriminator", "inter_channels",
    "hidden_channels", "filter_channels", "n_heads", "n_layers", "n_layers_trans_flow", "n_flow_layer", "kernel_size",
    "p_dropout", "resblock", "resblock_kernel_sizes", "resblock_dilation_sizes", "upsample_rates",
    "upsample_initial_channel", "upsample_kernel_sizes", "use_spectral_norm", "gin_channels", "use_transformer_flow",
)  # fmt: skip
DATA = (
    "sampling_rate", "filter_length", "hop_length", "win_length", "n_mel_channels", "mel_fmin", "mel_fmax", "add_blank",
)  # fmt: skip


def reference_config(cfg: Config, speakers: Mapping[str, int], slm_sizes: tuple[int, int]) -> dict[str, Any]:
    """The content of config.json.

    Args:
        cfg: of the run.
        speakers: name -> row of the speaker table.
        slm_sizes: width and number of WavLM's hidden states.
    """
    train, model, slm = cfg.train, cfg.model, cfg.model.slm
    width, states = slm_sizes
    return {
        "train": {
            "seed": train.seed,
            "learning_rate": train.learning_rate,
            "betas": list(train.betas),
            "eps": train.eps,
            "batch_size": cfg.data.plan.max_utterances,
            "bf16_run": train.precision == "bf16",
            "lr_decay": train.lr_decay,
            "segment_size": train.segment_size,
            "c_mel": train.loss_weights.mel,
            "c_kl": train.loss_weights.kl,
            "skip_optimizer": train.skip_optimizer,
            **{f"freeze_{key.upper()}_bert": f"{key}_bert" in train.freeze for key in ("zh", "jp", "en")},
            "log_interval": train.log_every_steps,
            "eval_interval": train.checkpoint.every_steps,
            "epochs": 1000,
        },
        "data": {
            **{key: getattr(cfg.data, key) for key in DATA},
            "training_files": "filelists/train.list",
            "validation_files": "filelists/val.list",
            "max_wav_value": 32768.0,
            "n_speakers": model.n_speakers,
            "cleaned_text": True,
            "spk2id": dict(speakers),
        },
        "model": {
            **{key: getattr(model, key) for key in SHARED},
            "n_layers_q": 3,
            "slm": {
                "model": slm.path, "sr": slm.sampling_rate, "hidden": width, "nlayers": states,
                "initial_channel": slm.initial_channel,
            },
        },
        "version": VERSION,
    }  # fmt: skip


def departures(cfg: Config) -> list[str]:
    """What the reference's networks cannot be told, so that its tools will not load these files as they are."""
    found = []
    if cfg.model.bert_channels != BERT_CHANNELS:
        found.append(f"model.bert_channels is {cfg.model.bert_channels}; the reference's networks take {BERT_CHANNELS}")
    if cfg.model.discriminator_width_divisor != 1:
        found.append("model.discriminator_width_divisor is not 1: the reference's discriminators have full width")
    return found
