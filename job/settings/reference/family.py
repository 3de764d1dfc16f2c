"""Whose a config.json is: told by its keys, since several trainers share the version strings."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data.settings.dotted_keys import flat

VERSION = "2.3"  # of Bert-VITS2: its networks, symbols and files
OTHERS = f"only a config.json of Bert-VITS2 {VERSION} can be converted"


@dataclass(frozen=True)
class Family:
    """A trainer with networks of its own.

    Attributes:
        name: its name.
        keys: keys that it alone has, as patterns of whole dotted keys.
        why: what its networks are that 2.3's are not.
    """

    name: str
    keys: str
    why: str


_STYLE = r"data\.(num_styles|style2id)|train\.freeze_(style|encoder|decoder)"
# the first that a file has a key of; those that have another's keys too come before it
FAMILIES = (
    Family(
        "Style-Bert-VITS2",
        rf"data\.use_jp_extra|{_STYLE}",
        "its text encoder takes style vectors",
    ),
    Family(
        "VITS2 (vits2_pytorch)",
        r"model\.(use_transformer_flows|transformer_flow_type|duration_discriminator_type)",
        "it has no tones, languages and BERT features",
    ),
    Family(
        "VITS",
        r"data\.text_cleaners(\..*)?",
        "it has other symbols, and no tones, languages and BERT features",
    ),
    Family(
        "MeloTTS",
        r"(.*\.)?(num_languages|num_tones|symbols|disable_bert)",
        "it has other symbols, languages and BERT features",
    ),
    Family(
        "Bert-VITS2 ZH-Clap",
        r"(.*[._])?clap([._].*)?",
        "its text encoder takes CLAP features and one language's BERT",
    ),
    Family(
        "Bert-VITS2 Extra",
        r"model\.use_wavlm_discriminator",
        "its text encoder takes one language's BERT, and other discriminators judge it",
    ),
)
# what these families call themselves in `version`, from one of them to the next
_CALLED = ((r"jp.?ext", "JP-Extra"), (r"clap", "ZH-Clap"), (r"ext", "Extra"), (r"2\.4", "2.4"))
_OLDER = re.compile(r"v?(1\.[\d.]*|2\.[0-2][\d.]*)")
_NEWER = re.compile(r"v?(2\.([4-9]|\d\d)|[3-9])", re.IGNORECASE)
_OF_BERT_VITS2 = (
    "model.use_spk_conditioned_encoder",
    "model.use_noise_scaled_mas",
    "train.freeze_ZH_bert",
    "data.spk2id",
)


def check_family(reference: Mapping[str, Any]) -> None:
    """Refuse the config.json of another trainer, or of another version of Bert-VITS2.

    Args:
        reference: its content.

    Raises:
        ValueError: names the trainer, the key that tells, and why it cannot be converted.
    """
    keys = flat(reference, whole=("data.spk2id", "data.style2id", "model.slm", "bert_vits2_ray"))
    version = str(reference.get("version", ""))
    for family in FAMILIES:
        if key := next((key for key in keys if re.fullmatch(family.keys, key, re.I)), None):
            name = _named(family, keys, version)
            raise ValueError(f"{key} is a key of {name}: {family.why}; {OTHERS}")
    if not keys.get("model.slm"):
        raise ValueError(_without_slm(keys, version))
    if called := _other_version(version):
        raise ValueError(
            f"version is {version}: Bert-VITS2 {called} has other networks; {OTHERS}. If its "
            f"networks are those of {VERSION}, take `version` out"
        )


def _named(family: Family, keys: Mapping[str, Any], version: str) -> str:
    """Return the name of a family with the branch that the file is of."""
    called = _other_version(version)
    if family.name == "Style-Bert-VITS2":
        japanese = keys.get("data.use_jp_extra") or called == "JP-Extra"
        return f"{family.name} {'JP-Extra' if japanese else '2.x'}"
    if family.name.startswith("Bert-VITS2") and called:
        return f"Bert-VITS2 {called}"
    return family.name


def _other_version(version: str) -> str:
    """Return what a version string of newer networks calls them; empty for other strings."""
    for pattern, name in _CALLED:
        if re.search(pattern, version, re.IGNORECASE):
            return name
    return version if _NEWER.match(version) else ""


def _without_slm(keys: Mapping[str, Any], version: str) -> str:
    """Return what to say of a file without the WavLM, which 2.3 began with."""
    missing = f"there is no model.slm, the WavLM that Bert-VITS2 {VERSION} trains with"
    called = _other_version(version)
    if any(key in keys for key in _OF_BERT_VITS2) or _OLDER.fullmatch(version) or called:
        own = called or (version if _OLDER.fullmatch(version) else "1.x to 2.2")
        return f"{missing}: the file is of Bert-VITS2 {own}, whose networks are others; {OTHERS}"
    return f"{missing}: the file is of another trainer; {OTHERS}"
