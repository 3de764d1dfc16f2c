"""A configuration's front ends and BERT models; preparation and synthesis make them here alike.

Torch is imported with the models alone, because most processes of a preparation need none.
"""

import os
import shutil
import tempfile
import uuid
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from fsspec.implementations.local import LocalFileSystem

from data.bert.tokenizer import load_tokenizer
from data.config import DataConfig
from data.files import PART_SUFFIX, located
from data.models import MADE_HERE, ZEROS
from data.text.front_end import FrontEnd, get_front_end
from data.text.languages import find
from data.text.readings import load_readings

if TYPE_CHECKING:
    from data.bert.features import BertFeatures


def front_end(cfg: DataConfig, language: str) -> FrontEnd:
    """Return the front end of a language, made as the configuration says."""
    own = find(language)
    options = {option: attrgetter(key)(cfg) for option, key in own.settings}
    options["readings"] = load_readings(cfg.text.readings, cfg.text.words).get(language)
    if own.reads_tokens:
        options["tokenizer"] = load_tokenizer(*bert_source(cfg, language))
    return get_front_end(language, **options)


def bert_features(cfg: DataConfig, language: str, device: str = "cpu") -> "BertFeatures":
    """Load the BERT model of a language."""
    from data.bert.features import BertFeatures

    return BertFeatures(*bert_source(cfg, language), device=device)


def bert_source(cfg: DataConfig, language: str) -> tuple[str, str | None]:
    """Return folder or hub name, and revision, of a language's BERT model.

    One of MADE_HERE is made if it is not there yet: beside local shards, otherwise in this
    machine's temporary folder. Its weights are the same everywhere.
    """
    model, revision = cfg.bert.model(language)
    if model not in MADE_HERE:
        return model, revision

    width = cfg.bert.random_width
    zeros = model == ZEROS
    folder = _random_models(cfg.shards) / f"{language}-{width}{f'-{ZEROS}' if zeros else ''}"
    if not folder.exists():
        _make_random_model(folder, language, width, zeros)
    return str(folder), None


def _random_models(shards: str) -> Path:
    """Return the folder of the random models that belong to a folder or URI of shards."""
    fs, root = located(shards)
    if isinstance(fs, LocalFileSystem):
        return Path(root) / "bert"
    return Path(tempfile.gettempdir()) / f"bert-vits2-ray-{os.getuid()}" / "bert"


def _make_random_model(folder: Path, language: str, width: int, zeros: bool) -> None:
    from data.bert.tiny import make_random_bert

    part = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}{PART_SUFFIX}")
    make_random_bert(part, language, width, zeros)
    try:
        part.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        shutil.rmtree(part)  # another process was first
