"""The reference trainer's config.json and ours: one table for both directions."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from data.settings.dotted_keys import attribute, flat, nested
from data.text.languages import PUBLISHED
from job.settings.config import Config
from job.settings.keys import did_you_mean
from job.settings.reference.family import VERSION, check_family
from trainable.weights.speakers import as_lists_name_them

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
# key of config.json -> our keys of the same meaning; for those with two, the reference does both
# at the same time
SAME: dict[str, tuple[str, ...]] = {
    **{f"train.{key}": (f"train.{key}",) for key in _TRAIN},
    "train.batch_size": ("data.plan.max_utterances",),
    "train.c_mel": ("train.loss_weights.mel",),
    "train.c_kl": ("train.loss_weights.kl",),
    "train.log_interval": ("train.log_every_steps", "train.image_every_steps"),
    "train.eval_interval": ("train.checkpoint.every_steps", "eval.every_steps"),
    **{f"data.{key}": (f"data.{key}",) for key in _DATA},
    "data.n_speakers": ("model.n_speakers",),
    "data.spk2id": ("data.speakers",),
    **{f"model.{key}": (f"model.{key}",) for key in _MODEL},
    "model.slm.model": ("model.slm.path",),
    "model.slm.sr": ("model.slm.sampling_rate",),
    "model.slm.initial_channel": ("model.slm.initial_channel",),
}
# Frames: the reference's buckets end there, so none of its batches has more than batch_size clips
# of this length.
LONGEST = 1000
BATCH_SIZE = 16  # the reference's, for a plan that has no fixed one
DILATIONS = {"1": 3, "2": 2}  # of each of the reference's residual blocks, by model.resblock
FREEZES = {f"train.freeze_{own.code}_bert": own.freeze_name for own in PUBLISHED}
KEEP = "train.keep_ckpts"  # of older versions, and of forks; 2.3 has it in config.yml
PRECISIONS = {"train.bf16_run": "bf16", "train.fp16_run": "fp16"}
# keys without which the reference builds another network than with our default
ABSENT: dict[str, Any] = {
    "model.use_noise_scaled_mas": False,
    "model.use_duration_discriminator": False,
    "model.gin_channels": 256,
}
_NOTHING = "does nothing in the reference either"
_LISTS = (
    "holds phones made by the reference: give data.transcript the list that they were made from "
    "(esd.list)"
)
NOT_USED = {
    "version": "decides only whether this file can be converted",
    "train.epochs": "runs are counted in global steps: set train.max_steps",
    "train.init_lr_ratio": _NOTHING,
    "train.warmup_epochs": f"{_NOTHING}; train.warmup_steps does",
    "train.c_commit": _NOTHING,
    "train.freeze_emo": _NOTHING,
    "data.training_files": _LISTS,
    "data.validation_files": (
        f"{_LISTS}; data.validation_share and a column `split` choose what is held back"
    ),
    "data.max_wav_value": "audio is decoded to floats by libsndfile, whatever its width",
    "data.cleaned_text": "job.prepare does the cleaning",
    "data.max_text_len": "no text is dropped for its length",
    "data.min_text_len": "no text is dropped for its length",
    "model.n_layers_q": _NOTHING,
    "model.use_sdp": _NOTHING,
    "model.slm.hidden": "is read from the WavLM itself",
    "model.slm.nlayers": "is read from the WavLM itself",
}
# must be false: another network than 2.3 trains
REFUSED = (
    "model.use_mel_posterior_encoder",
    "model.flow_share_parameter",
    "data.use_mel_posterior_encoder",
)
# section of ours in the config.json of an export: what the reference has no key for
OWN = "bert_vits2_ray"
_OWN_KEYS = re.compile(
    r"model\.(bert_channels|discriminator_width_divisor|decoder|vocos\..+)"
    r"|data\.(japanese_engine|bert\..+|text\.(normaliser|words))"
)
# keys whose objects are values, whatever they hold: names with dots in them are no keys
_WHOLE = (*SAME, *FREEZES, *PRECISIONS, *REFUSED, OWN)
_WORDS = "data.text.words"  # likewise, of ours
NORMALISER = "data.text.normaliser"


@dataclass
class Converted:
    """What became of a config.json.

    Attributes:
        ours: dotted key of ours -> value.
        not_used: key that is not used -> the reason.
        notes: what else to tell.
    """

    ours: dict[str, Any] = field(default_factory=dict)
    not_used: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def reference_config(
    cfg: Config, speakers: Mapping[str, int], slm_sizes: tuple[int, int]
) -> dict[str, Any]:
    """Return the content of config.json.

    Args:
        cfg: configuration of the run.
        speakers: name -> row of the speaker table.
        slm_sizes: width and number of WavLM's hidden states.
    """
    width, states = slm_sizes
    values: dict[str, Any] = {theirs: attribute(cfg, ours[0]) for theirs, ours in SAME.items()}
    values["train.batch_size"] = values["train.batch_size"] or BATCH_SIZE
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


def own_settings(cfg: Config) -> dict[str, Any]:
    """Return the section OWN of an export's config.json: dotted key -> value, of no default.

    How its texts are read is always there, as without it they are read as the reference does.
    Folders of this machine are left out, as nobody else has them.
    """
    defaults = flat(asdict(Config()), whole=(_WORDS,))
    return {
        key: value
        for key, value in flat(asdict(cfg), whole=(_WORDS,)).items()
        if _OWN_KEYS.fullmatch(key)
        and (key == NORMALISER or value != defaults.get(key))
        and not (isinstance(value, str) and value.startswith("/"))
    }


def converted(reference: Mapping[str, Any]) -> Converted:
    """Convert a config.json of 2.3.

    Args:
        reference: its content.

    Raises:
        ValueError: it is of another trainer or version, has a key of networks that is unknown, or
            is of networks that 2.3 does not train; names the key.
    """
    _check_sections(reference)
    check_family(reference)
    result = Converted()
    given = flat(reference, whole=_WHOLE)
    _check_networks(given)
    _check_values(given)
    for key, value in given.items():
        _convert(key, value, result)

    if NORMALISER not in result.ours:
        result.ours[NORMALISER] = "reference"
        result.notes.append(f"{NORMALISER} is reference: so were its texts read there")
    for key, value in ABSENT.items():
        if key not in given:
            result.ours |= dict.fromkeys(SAME[key], value)
            result.notes.append(f"{key} is absent, which means {value} there")
    if isinstance(size := result.ours.get("data.plan.max_utterances"), int):
        # our default would cut most of its batches smaller
        result.ours["data.plan.mode"] = "budget"
        result.ours["data.plan.max_frames"] = LONGEST * size
    return result


def _convert(key: str, value: Any, result: Converted) -> None:
    """Add what a key of config.json means here."""
    ours = result.ours
    if key == "data.spk2id":
        ours["data.speakers"] = as_lists_name_them(value)
    elif key in SAME:
        ours |= dict.fromkeys(SAME[key], value)
    elif key in FREEZES:
        # three switches there, one list here
        ours["train.freeze"] = ours.get("train.freeze", []) + [FREEZES[key]] * bool(value)
    elif key in PRECISIONS:
        # two switches there, one choice here; a false one leaves the other's choice
        others = ours.get("train.precision", "fp32")
        ours["train.precision"] = PRECISIONS[key] if value else others
    elif key == KEEP:
        ours["train.checkpoint.keep"] = value
    elif key == OWN and isinstance(value, Mapping):
        ours |= {own: setting for own, setting in value.items() if _OWN_KEYS.fullmatch(own)}
    elif key in REFUSED:
        result.not_used[key] = "false is all there is"
    elif key in NOT_USED or value != {}:
        result.not_used[key] = NOT_USED.get(key, f"is no key of Bert-VITS2 {VERSION}")


def _check_networks(given: Mapping[str, Any]) -> None:
    """Refuse a key of networks that 2.3 has not: whoever has it trains something else."""
    known = [key for key in (*SAME, *NOT_USED, *REFUSED) if key.startswith("model.")]
    for key, value in given.items():
        if key.startswith("model.") and key not in known and value != {}:
            raise ValueError(
                f"{key} is no key of Bert-VITS2 {VERSION}{did_you_mean(key, known)}: take it out "
                "if it does nothing; otherwise its networks are another trainer's"
            )


def _check_sections(reference: Mapping[str, Any]) -> None:
    found = {name: reference.get(name, {}) for name in ("train", "data", "model")}
    if isinstance(found["model"], Mapping):
        found["model.slm"] = found["model"].get("slm", {})
    if isinstance(found["data"], Mapping):
        found["data.spk2id"] = found["data"].get("spk2id", {})
    for name, section in found.items():
        if not isinstance(section, Mapping):
            raise ValueError(f"{name} is {section!r}: it must be an object of keys")


def _check_values(given: Mapping[str, Any]) -> None:
    """Refuse values that ours would take for something else."""
    for key in (*PRECISIONS, *FREEZES, *REFUSED):
        # "false" is a true value
        if (value := given.get(key, False)) not in (True, False):
            raise ValueError(f"{key} is {value!r}: give true or false")
    for key in REFUSED:
        if value := given.get(key):
            raise ValueError(
                f"{key} is {value}: {VERSION} does not train that network; only false can be "
                "converted"
            )
    wanted = [key for key in PRECISIONS if given.get(key)]
    if len(wanted) > 1:
        raise ValueError(f"{' and '.join(wanted)} are both true: set one of them")
    if given.get("train.batch_size", 1) is None:  # which is no limit here
        raise ValueError("train.batch_size is null: give a whole number from 1")


def departures(cfg: Config) -> list[str]:
    """Return what the reference's networks have no setting for.

    If there is anything, the reference's tools will not load the exported files as they are.
    """
    found = generator_departures(cfg)
    if cfg.model.discriminator_width_divisor != 1:
        found.append(
            "model.discriminator_width_divisor is not 1: the reference's discriminators have full "
            "width"
        )
    return found


def generator_departures(cfg: Config) -> list[str]:
    """Return what the reference's generator has no setting for."""
    found = []
    if cfg.model.bert_channels != BERT_CHANNELS:
        found.append(
            f"model.bert_channels is {cfg.model.bert_channels}; the reference's networks take "
            f"{BERT_CHANNELS}"
        )
    if cfg.model.decoder != "hifigan":
        found.append(f"model.decoder is {cfg.model.decoder}; the reference's is hifigan")
    wanted = DILATIONS[cfg.model.resblock]
    dilations = {len(own) for own in cfg.model.resblock_dilation_sizes}
    if cfg.model.decoder == "hifigan" and dilations != {wanted}:
        found.append(
            f"model.resblock_dilation_sizes: the reference's resblock {cfg.model.resblock} has "
            f"{wanted} dilations"
        )
    further = cfg.data.bert.languages()[len(PUBLISHED) :]
    if further:
        codes = ", ".join(language.code for language in further)
        found.append(f"data.bert.others: the reference's text encoder has no place for {codes}")
    return found
