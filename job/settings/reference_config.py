"""The reference trainer's config.json and ours: one table for both directions (job.export, job.convert_config)."""

from collections.abc import Mapping
from typing import Any

from job.settings.config import Config

VERSION = "2.3"  # of Bert-VITS2: its networks, symbols and files
BERT_CHANNELS = 1024  # fixed in its text encoder
_MODEL = (
    "use_spk_conditioned_encoder",
    "use_noise_scaled_mas",
    "use_duration_discriminator",
    "inter_channels",
    "hidden_channels",
    "filter_channels",
    "n_heads",
    "n_layers",
    "n_layers_trans_flow",
    "n_flow_layer",
    "kernel_size",
    "p_dropout",
    "resblock",
    "resblock_kernel_sizes",
    "resblock_dilation_sizes",
    "upsample_rates",
    "upsample_initial_channel",
    "upsample_kernel_sizes",
    "use_spectral_norm",
    "gin_channels",
    "use_transformer_flow",
)
_DATA = (
    "sampling_rate",
    "filter_length",
    "hop_length",
    "win_length",
    "n_mel_channels",
    "mel_fmin",
    "mel_fmax",
    "add_blank",
)
_TRAIN = ("seed", "learning_rate", "betas", "eps", "lr_decay", "segment_size", "skip_optimizer")
# a key of config.json -> ours of the same meaning; what has two here, the reference does at one
# time
SAME: dict[str, tuple[str, ...]] = {
    **{f"train.{key}": (f"train.{key}",) for key in _TRAIN},
    "train.batch_size": ("data.plan.max_utterances",),
    "train.c_mel": ("train.loss_weights.mel",),
    "train.c_kl": ("train.loss_weights.kl",),
    "train.log_interval": ("train.log_every_steps",),
    "train.eval_interval": ("train.checkpoint.every_steps", "eval.every_steps"),
    **{f"data.{key}": (f"data.{key}",) for key in _DATA},
    "data.n_speakers": ("model.n_speakers",),
    **{f"model.{key}": (f"model.{key}",) for key in _MODEL},
    "model.slm.model": ("model.slm.path",),
    "model.slm.sr": ("model.slm.sampling_rate",),
    "model.slm.initial_channel": ("model.slm.initial_channel",),
}
# frames: the reference's buckets end there, so no batch of its has more than batch_size of these
LONGEST = 1000
FREEZES = {f"train.freeze_{key.upper()}_bert": f"{key}_bert" for key in ("zh", "jp", "en")}
PRECISIONS = {"train.bf16_run": "bf16", "train.fp16_run": "fp16"}
_NOTHING = "does nothing in the reference either"
_LISTS = "holds phones of the reference's making: give data.transcript the list that these were made from (esd.list)"
NOT_USED = {
    "version": "decides only whether this file can be converted",
    "train.epochs": "runs are counted in global steps: set train.max_steps",
    "train.init_lr_ratio": _NOTHING,
    "train.warmup_epochs": f"{_NOTHING}; train.warmup_steps does",
    "train.c_commit": _NOTHING,
    "train.freeze_emo": _NOTHING,
    "data.training_files": _LISTS,
    "data.validation_files": f"{_LISTS}; data.validation_share and a column `split` choose what is held back",
    "data.max_wav_value": "audio is decoded to floats by libsndfile, whatever its width",
    "data.cleaned_text": "job.prepare does the cleaning",
    "data.spk2id": "job.prepare numbers the speakers (manifest.json); train.init_from takes speakers' rows by number",
    "model.n_layers_q": _NOTHING,
    "model.slm.hidden": "is read from the WavLM itself",
    "model.slm.nlayers": "is read from the WavLM itself",
}
# must be false: another network than 2.3 trains
REFUSED = ("model.use_mel_posterior_encoder", "model.flow_share_parameter")


def reference_config(
    cfg: Config, speakers: Mapping[str, int], slm_sizes: tuple[int, int]
) -> dict[str, Any]:
    """The content of config.json.

    Args:
        cfg: of the run.
        speakers: name -> row of the speaker table.
        slm_sizes: width and number of WavLM's hidden states.
    """
    width, states = slm_sizes
    values: dict[str, Any] = {theirs: _get(cfg, ours[0]) for theirs, ours in SAME.items()}
    values |= {theirs: ours in cfg.train.freeze for theirs, ours in FREEZES.items()}
    values |= {
        "train.bf16_run": cfg.train.precision == "bf16",
        "train.epochs": 1000,
        "data.training_files": "filelists/train.list",
        "data.validation_files": "filelists/val.list",
        "data.max_wav_value": 32768.0,
        "data.cleaned_text": True,
        "data.spk2id": dict(speakers),
        "model.n_layers_q": 3,
        "model.slm.hidden": width,
        "model.slm.nlayers": states,
        "version": VERSION,
    }
    return nested(values)


def _get(cfg: Config, key: str) -> Any:
    value: Any = cfg
    for name in key.split("."):
        value = getattr(value, name)
    return value


def converted(reference: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Ours for a config.json of 2.3.

    Args:
        reference: its content.

    Returns:
        Sections and keys of ours, for those that it has; and the keys that are not used, with the
        reason.

    Raises:
        ValueError: of another version, or of networks that 2.3 does not train; names the key.
    """
    found = str(reference.get("version", "none"))
    if found.split(".")[:2] != VERSION.split("."):
        raise ValueError(
            f"version is {found}: only a config.json of Bert-VITS2 {VERSION} can be converted, as other versions have "
            f"other networks. If its networks are those of {VERSION}, set version to {VERSION}"
        )
    ours: dict[str, Any] = {}
    not_used: dict[str, str] = {}
    for key, value in flat(reference).items():
        if key in SAME:
            ours |= dict.fromkeys(SAME[key], value)
        elif key in FREEZES:
            ours["train.freeze"] = ours.get("train.freeze", []) + [FREEZES[key]] * bool(value)
        elif key in PRECISIONS:
            ours["train.precision"] = (
                PRECISIONS[key] if value else ours.get("train.precision", "fp32")
            )
        elif key in REFUSED and value:
            raise ValueError(
                f"{key} is {value}: that network is none that 2.3 trains; only false can be converted"
            )
        else:
            false = (
                "false is all there is" if key in REFUSED else f"is no key of Bert-VITS2 {VERSION}"
            )
            not_used[key] = NOT_USED.get(key, false)
    if isinstance(size := ours.get("data.plan.max_utterances"), int):
        ours["data.plan.max_frames"] = LONGEST * size  # ours would cut most of its batches smaller
    return nested(ours), not_used


def flat(sections: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys -> values; a table of names and numbers (spk2id) is a value."""
    found: dict[str, Any] = {}
    for name, value in sections.items():
        if isinstance(value, Mapping) and f"{prefix}{name}" not in NOT_USED:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Sections of sections for dotted keys."""
    root: dict[str, Any] = {}
    for key, value in values.items():
        *sections, name = key.split(".")
        at = root
        for section in sections:
            at = at.setdefault(section, {})
        at[name] = value
    return root


def departures(cfg: Config) -> list[str]:
    """What the reference's networks cannot be told, so that its tools will not load these files as they are."""
    found = []
    if cfg.model.bert_channels != BERT_CHANNELS:
        found.append(
            f"model.bert_channels is {cfg.model.bert_channels}; the reference's networks take {BERT_CHANNELS}"
        )
    if cfg.model.discriminator_width_divisor != 1:
        found.append(
            "model.discriminator_width_divisor is not 1: the reference's discriminators have full width"
        )
    return found
