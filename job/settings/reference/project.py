"""The reference trainer's project around a config.json: its config.yml, lists and models."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from data.files import PathError, is_local, located, read_file
from data.models import CONFIG, HUB_NAME, RANDOM, WEIGHTS
from data.settings.dotted_keys import flat
from trainable.weights.published import newest

CONFIG_YML = "config.yml"
UPWARDS = 5  # folders: Data/GROUP/NAME/configs/config.json is a file of the fifth
# the reference keeps WavLM in ./slm, by the name that it has on the hub
WAVLMS = re.compile(r"wavlm-(base|base-plus|base-sv|base-plus-sv|large)")
_PLACES = "Ray places the workers, and chooses their addresses"
_ROOT = "says where the lists and the models lie, which is taken from it"
# section or key of config.yml -> why it is not used
NOT_USED = {
    "mirror": "BERT and WavLM come from the hub: HF_ENDPOINT names a mirror",
    "openi_token": "models come from the hub, whose token is HF_TOKEN",
    "dataset_path": _ROOT,
    "resample": "job.prepare resamples",
    "preprocess_text": "job.prepare does it; its list is data.transcript",
    "bert_gen": "job.prepare computes the features",
    "emo_gen": "does nothing in 2.3 either",
    "train_ms.env": _PLACES,
    "train_ms.base": "train.init_from names the weights that a run starts from",
    "train_ms.config_path": _ROOT,
    "train_ms.num_workers": "data.loaders takes what the workers leave of the CPUs",
    "train_ms.spec_cache": "data.spectrogram_on: shards keeps spectrograms",
    "webui": "is of the web UI: job.synthesize speaks",
    "server": "is of the server: job.synthesize speaks",
    "translate": "is of the web UI",
}


@dataclass(frozen=True)
class Project:
    """A folder of the reference trainer.

    Attributes:
        root: the folder that paths in its lists start from; None if nobody says which it is.
        settings: content of its config.yml; empty without one.
        dataset: the folder of the data set that the config.json is of, as config.yml says; None if
            it says another, or nothing.
    """

    root: Path | None = None
    settings: Mapping[str, Any] | None = None
    dataset: Path | None = None


def find_project(config: str, data_root: str | None) -> Project:
    """Return the project that a config.json lies in.

    Args:
        config: path or URI of the config.json; beside a URI nothing is looked for.
        data_root: folder that the lists' paths start from; None: that of config.yml.

    Raises:
        ValueError: its config.yml is no YAML.
        OSError: it cannot be read.
    """
    root = Path(data_root) if data_root and is_local(data_root) else None
    if not is_local(config):
        return Project(root)
    file = Path(located(config)[1]).resolve()
    for folder in list(file.parents)[:UPWARDS]:
        settings = _settings(folder / CONFIG_YML)
        if settings is not None:
            return Project(root or folder, settings, _dataset(folder, settings, file))
    return Project(root)


def _settings(path: Path) -> Mapping[str, Any] | None:
    """Return the content of a config.yml of the reference; None if there is none, or no such."""
    if not path.is_file():
        return None
    try:
        content = yaml.safe_load(read_file(str(path)))
        flat(content if isinstance(content, Mapping) else {})  # sections may hold themselves
    except PathError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    is_its = isinstance(content, Mapping) and isinstance(content.get("train_ms"), Mapping)
    return content if is_its else None


def _dataset(root: Path, settings: Mapping[str, Any], config: Path) -> Path | None:
    """Return the folder of the data set, if config.yml is about this config.json."""
    folder = root / _text(settings, "dataset_path")
    named = folder / (_text(settings, "train_ms.config_path") or "config.json")
    return folder.resolve() if named.resolve() == config else None


def _text(settings: Mapping[str, Any], key: str) -> str:
    value = flat(settings).get(key)
    return value.replace("\\", "/") if isinstance(value, str) else ""


def of_project(project: Project) -> tuple[dict[str, Any], dict[str, str]]:
    """Convert what a project says beside config.json.

    Returns:
        Dotted key of ours -> value; and for each key of config.yml that is not used, the reason.
    """
    ours: dict[str, Any] = {}
    if project.root is not None:
        ours["data.audio_root"] = str(project.root.resolve())
    settings = project.settings or {}
    found = flat(settings)
    if (keep := found.get("train_ms.keep_ckpts")) is not None:
        ours["train.checkpoint.keep"] = keep
    # it becomes a variable of the environment, so a text does as well
    workers = str(found.get("train_ms.env.WORLD_SIZE", ""))
    if workers.isdecimal() and int(workers) > 1:
        ours["train.micro_batches_per_step"] = int(workers)
    not_used = {key: reason for key, reason in NOT_USED.items() if _has(settings, key)}
    if project.dataset is not None:
        ours |= dict(_of_dataset(project.dataset, settings))
        transcript = _transcript(project.dataset, settings)
        if transcript and "data.transcript" not in ours:
            not_used["preprocess_text"] = f"{transcript} is not there: set data.transcript"
    if settings and project.dataset is None:
        not_used["dataset_path"] = "is not the folder of this config.json: set data.transcript"
    if "train.init_from" not in ours and _has(settings, "train_ms.model"):
        not_used["train_ms.model"] = "holds no weights: train.init_from names those to start from"
    return ours, not_used


def _of_dataset(folder: Path, settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield our keys for the list and the weights of a data set, if they are there."""
    transcript = _transcript(folder, settings)
    if transcript and transcript.is_file():
        yield "data.transcript", str(transcript)
    models = folder / (_text(settings, "train_ms.model") or "models")
    if models.is_dir() and "g" in newest(path.name for path in models.iterdir()):
        yield "train.init_from", str(models)


def _transcript(folder: Path, settings: Mapping[str, Any]) -> Path | None:
    """Return the list of a data set; None if config.yml names none."""
    named = _text(settings, "preprocess_text.transcription_path")
    return folder / named if named else None


def _has(settings: Mapping[str, Any], key: str) -> bool:
    """Tell whether config.yml says something under a key."""
    section, _, name = key.partition(".")
    found = settings.get(section)
    if name:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found not in (None, "", {})


def wavlm_of(model: Any, root: Path | None) -> Any:
    """Return the WavLM of `model.slm.model`, as `model.slm.path` names it.

    Args:
        model: a folder, which starts from the project's, or a name on the hub.
        root: folder of the project.

    Raises:
        ValueError: it is no text, or a folder that is not here and of no name that the hub has.
    """
    if not isinstance(model, str):
        raise ValueError(f"model.slm.model is {model!r}: give the name or the folder of a WavLM")
    if model == RANDOM:
        return model
    path = model.replace("\\", "/").rstrip("/")
    folder = (root or Path.cwd()) / Path(path).expanduser()
    if (folder / CONFIG).is_file() and any(WEIGHTS.fullmatch(f.name) for f in folder.iterdir()):
        return str(folder.resolve())
    if WAVLMS.fullmatch(name := path.rpartition("/")[2].lower()):
        return f"microsoft/{name}"
    if HUB_NAME.fullmatch(path) and not path.startswith("."):
        return path
    raise ValueError(
        f"model.slm.model is {model}: {folder} holds no WavLM; give its name on the hub, such as "
        "microsoft/wavlm-base-plus, or the project's folder as --data-root"
    )
