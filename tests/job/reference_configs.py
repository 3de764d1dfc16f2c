"""Key sets of published config.json files: of 2.3, of its relatives, and of other trainers."""

import copy
from typing import Any

Content = dict[str, Any]

# what the reference's release 2.3 ships
V23: Content = {
    "train": {
        "log_interval": 200,
        "eval_interval": 1000,
        "seed": 42,
        "epochs": 1000,
        "learning_rate": 0.0002,
        "betas": [0.8, 0.99],
        "eps": 1e-9,
        "batch_size": 16,
        "bf16_run": False,
        "lr_decay": 0.99995,
        "segment_size": 16384,
        "init_lr_ratio": 1,
        "warmup_epochs": 0,
        "c_mel": 45,
        "c_kl": 1.0,
        "c_commit": 100,
        "skip_optimizer": True,
        "freeze_ZH_bert": False,
        "freeze_JP_bert": False,
        "freeze_EN_bert": False,
        "freeze_emo": False,
    },
    "data": {
        "training_files": "filelists/train.list",
        "validation_files": "filelists/val.list",
        "max_wav_value": 32768.0,
        "sampling_rate": 44100,
        "filter_length": 2048,
        "hop_length": 512,
        "win_length": 2048,
        "n_mel_channels": 128,
        "mel_fmin": 0.0,
        "mel_fmax": None,
        "add_blank": True,
        "n_speakers": 896,
        "cleaned_text": True,
        "spk2id": {"Ann": 0, "Bo": 1},
    },
    "model": {
        "use_spk_conditioned_encoder": True,
        "use_noise_scaled_mas": True,
        "use_mel_posterior_encoder": False,
        "use_duration_discriminator": True,
        "inter_channels": 192,
        "hidden_channels": 192,
        "filter_channels": 768,
        "n_heads": 2,
        "n_layers": 6,
        "kernel_size": 3,
        "p_dropout": 0.1,
        "resblock": "1",
        "resblock_kernel_sizes": [3, 7, 11],
        "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
        "upsample_rates": [8, 8, 2, 2, 2],
        "upsample_initial_channel": 512,
        "upsample_kernel_sizes": [16, 16, 8, 2, 2],
        "n_layers_q": 3,
        "use_spectral_norm": False,
        "gin_channels": 512,
        "slm": {
            "model": "./slm/wavlm-base-plus",
            "sr": 16000,
            "hidden": 768,
            "nlayers": 13,
            "initial_channel": 64,
        },
    },
    "version": "2.3",
}


def changed(section: str, base: Content = V23, **keys: Any) -> Content:
    """`base` with other values of a section's keys."""
    return base | {section: base[section] | keys}


def without(*keys: str, base: Content = V23) -> Content:
    """`base` without some keys, such as `model.slm`."""
    left = copy.deepcopy(base)
    for key in keys:
        section, _, name = key.partition(".")
        if name:
            left[section].pop(name, None)
        else:
            left.pop(section, None)
    return left


SLM = V23["model"]["slm"]
OLD = without("model.slm", "train.c_commit", "train.freeze_emo")  # before WavLM
STYLES = {"num_styles": 1, "style2id": {"Neutral": 0}}

# name -> content, of what is converted
CONVERTED: dict[str, Content] = {
    "the release": V23,
    "the published base, whose version is of its networks before": V23 | {"version": "2.2"},
    "without a version": without("version"),
    "an old version on the keys of 2.3": V23 | {"version": "2.1"},
    "WavLM of the hub": changed("model", slm=SLM | {"model": "microsoft/wavlm-base-plus"}),
    "WavLM by a Windows path": changed("model", slm=SLM | {"model": ".\\slm\\wavlm-large"}),
    "keys of an installer": changed("train", save_compressed_models=True, keep_ckpts=5),
    "VITS1 by its switches": changed(
        "model",
        use_spk_conditioned_encoder=False,
        use_noise_scaled_mas=False,
        use_duration_discriminator=False,
        use_transformer_flow=False,
    ),
    "VITS1 by absent keys": without(
        "model.use_noise_scaled_mas",
        "model.use_duration_discriminator",
        base=changed("model", use_spectral_norm=True),
    ),
    "the few keys that a tutorial names": {
        "version": "2.3",
        "train": {"batch_size": 2},
        "data": {"n_speakers": 1},
        "model": {"slm": SLM},
    },
}
# name -> content of what is refused, and what the refusal must say
REFUSED: dict[str, tuple[Content, str]] = {
    "Bert-VITS2 1.1": (
        without("version", base=changed("model", OLD, gin_channels=256)),
        r"Bert-VITS2 1\.x to 2\.2",
    ),
    "Bert-VITS2 2.1": (
        changed("model", OLD, gin_channels=256) | {"version": "2.1"},
        r"of Bert-VITS2 2\.1, whose networks",
    ),
    "Bert-VITS2 2.2": (OLD | {"version": "2.2"}, r"of Bert-VITS2 2\.2, whose networks"),
    "Bert-VITS2 2.4": (
        changed("model", use_wavlm_discriminator=True) | {"version": "2.4"},
        r"use_wavlm_discriminator is a key of Bert-VITS2 2\.4",
    ),
    "Bert-VITS2 Extra": (
        changed("model", use_wavlm_discriminator=True, use_duration_discriminator=False),
        r"is a key of Bert-VITS2 Extra",
    ),
    "Bert-VITS2 JP-Extra": (
        changed("model", use_wavlm_discriminator=False) | {"version": "2.0.1-JP-Exta"},
        r"is a key of Bert-VITS2 JP-Extra",
    ),
    "Bert-VITS2 ZH-Clap": (
        changed("model", use_wavlm_discriminator=True, clap_dim=512),
        r"model\.clap_dim is a key of Bert-VITS2 ZH-Clap",
    ),
    "a newer version by its name alone": (V23 | {"version": "2.4-Extra"}, r"version is 2\.4-Extra"),
    "a WavLM that is none": (
        changed("model", slm={}) | {"version": "2.2"},
        r"no model\.slm.* of Bert-VITS2 2\.2, whose networks",
    ),
    "Bert-VITS2 ZH-Clap by its name": (
        OLD | {"version": "ZH-Clap"},
        r"of Bert-VITS2 ZH-Clap, whose networks",
    ),
    "Bert-VITS2 by its table of speakers alone": (
        {"data": {"spk2id": {"Ann": 0}}, "model": {"n_layers": 6}},
        r"of Bert-VITS2 1\.x to 2\.2, whose networks",
    ),
    "Style-Bert-VITS2 2.3": (
        changed("data", changed("train", freeze_style=False), **STYLES, use_jp_extra=False),
        r"is a key of Style-Bert-VITS2 2\.x: .*style vectors",
    ),
    "Style-Bert-VITS2 2.3.1 JP-Extra": (
        changed("data", use_jp_extra=True, **STYLES) | {"version": "2.3.1-JP-Extra"},
        r"data\.use_jp_extra is a key of Style-Bert-VITS2 JP-Extra",
    ),
    "Style-Bert-VITS2 of before": (
        changed("data", OLD, **STYLES) | {"version": "2.1", "model_name": "x"},
        r"data\.num_styles is a key of Style-Bert-VITS2 2\.x",
    ),
    "VITS": (
        without("version", base=changed("data", OLD, text_cleaners=["english_cleaners2"])),
        r"data\.text_cleaners is a key of VITS:",
    ),
    "VITS2": (
        changed("model", changed("data", OLD, text_cleaners=[]), use_transformer_flows=True),
        r"model\.use_transformer_flows is a key of VITS2",
    ),
    "MeloTTS": (OLD | {"num_tones": 16, "num_languages": 10, "symbols": ["_"]}, r"key of MeloTTS"),
    "another project": (without("version", base={"model": {"ssl_dim": 256}}), r"another trainer"),
    "nothing": ({}, r"no model\.slm"),
    "a key of networks that nobody knows": (
        changed("model", use_mrd=True),
        r"model\.use_mrd is no key of Bert-VITS2 2\.3",
    ),
    "a misspelt key of networks": (
        changed("model", use_noise_scaled_mass=True),
        r"did you mean model\.use_noise_scaled_mas\?",
    ),
    "a mel posterior encoder": (
        changed("model", use_mel_posterior_encoder=True),
        r"model\.use_mel_posterior_encoder is True",
    ),
    "a WavLM that is nowhere": (
        changed("model", slm=SLM | {"model": "./slm/my-own"}),
        r"model\.slm\.model is \./slm/my-own: .* holds no WavLM",
    ),
}
