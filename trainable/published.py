"""Published weights to start from, in the reference's layout: G_*.pth, D_*.pth, DUR_*.pth, WD_*.pth.

Each file is a torch pickle of a dict whose key `model` holds a state dict under our own names. They come from
strangers: nothing but tensors and plain numbers is unpickled. Optimizer states are not taken over.
"""

import pickle
import re
from collections.abc import Mapping
from typing import Any

import fsspec
import torch
from torch import Tensor, nn

from trainable.checkpoint import mismatches

PREFIXES = {"g": "G", "d": "D", "dur": "DUR", "wd": "WD"}  # network -> beginning of its file's name
SPEAKERS = "emb_g.weight"  # [n_speakers, gin_channels]


def load_published(folder_or_uri: str, nets: Mapping[str, nn.Module]) -> list[str]:
    """Take over what fits of published weights, in place.

    Args:
        folder_or_uri: of the files, any combination of them; the highest number of each wins.
        nets: name -> network, not wrapped.

    Returns:
        A report: for each network what was taken over, and every tensor that is missing, unknown or misshaped.

    Raises:
        ValueError: there is no file, or one is damaged, holds pickled code or NaN, or is of another architecture.
    """
    fs, root = fsspec.core.url_to_fs(folder_or_uri)
    files = find_files(fs, root, folder_or_uri)
    report = []
    for name, prefix in PREFIXES.items():
        path = files.get(name)
        if path is None and name in nets:
            report.append(f"{prefix}_*.pth is missing: network `{name}` keeps its initial weights")
        elif path is not None and name not in nets:
            report.append(f"{path.rpartition('/')[2]} is not used: model.* asks for no network `{name}`")
        elif path is not None:
            with fs.open(path, "rb") as file:
                report += take_over(read_weights(file, path), nets[name], path)
    return report


def find_files(fs: fsspec.AbstractFileSystem, root: str, folder: str) -> dict[str, str]:
    """Network -> path of its file with the highest number.

    Raises:
        ValueError: there is none.
    """
    found: dict[str, tuple[int, str]] = {}
    networks = {prefix: name for name, prefix in PREFIXES.items()}
    for path in fs.ls(root, detail=False) if fs.isdir(root) else []:
        match = re.fullmatch(rf"({'|'.join(networks)})_(\d+)\.pth", path.rpartition("/")[2])
        if match:
            name, number = networks[match[1]], int(match[2])
            found[name] = max(found.get(name, (-1, "")), (number, path))
    if not found:
        names = ", ".join(f"{prefix}_*.pth" for prefix in networks)
        raise ValueError(f"train.init_from {folder} holds no published weights: none of {names}")
    return {name: path for name, (_, path) in found.items()}


def read_weights(file: Any, path: str) -> dict[str, Tensor]:
    """The state dict of an opened file.

    Raises:
        ValueError: names the file, and what is wrong with it.
    """
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except OSError:  # of the storage: another attempt may succeed
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        code = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        reason = (
            f"holds pickled code ({code[1]}), which is not run" if code else "is truncated, damaged or no torch file"
        )
        raise ValueError(f"{path} is refused: it {reason}") from error
    weights = content.get("model") if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"{path} is refused: it has no key `model` with a network's tensors")
    return weights


def take_over(weights: Mapping[str, Tensor], net: nn.Module, path: str) -> list[str]:
    """Load into `net` the tensors that fit, and the speakers that both tables have.

    Returns:
        Lines of the report.

    Raises:
        ValueError: fewer than half of the network's tensors fit, or some hold NaN or infinity.
    """
    own, name = net.state_dict(), path.rpartition("/")[2]
    weights, notes = fit_speakers(weights, own)
    wrong = mismatches(weights, own)
    taken = {key: weights[key] for key, t in own.items() if key in weights and weights[key].shape == t.shape}
    if 2 * len(taken) < len(own):
        raise ValueError(
            f"{path} is of another architecture, only {len(taken)} of {len(own)} tensors fit: {'; '.join(wrong[:3])}. "
            "Set model.* as its publisher did"
        )
    broken = [key for key, value in taken.items() if not torch.isfinite(value).all()]
    if broken:
        raise ValueError(f"{path} is refused: NaN or infinity in {', '.join(broken[:3])} ({len(broken)} tensors)")
    net.load_state_dict({**own, **taken})
    return [f"{name}: {line}" for line in (f"{len(taken)} of {len(own)} tensors are taken over", *notes, *wrong)]


def fit_speakers(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], list[str]]:
    """Bring a speaker table [n, gin] to the own one's rows; rows beyond the published ones stay as they are.

    Returns:
        The weights with that table, and what to report.
    """
    theirs, ours = weights.get(SPEAKERS), own.get(SPEAKERS)
    if theirs is None or ours is None or theirs.shape == ours.shape or theirs.shape[1:] != ours.shape[1:]:
        return weights, []
    rows = min(len(theirs), len(ours))
    table = torch.cat([theirs[:rows].to(ours), ours[rows:]])
    note = f"{SPEAKERS} has {len(theirs)} rows: the first {rows} of the {len(ours)} here are taken over"
    return {**weights, SPEAKERS: table}, [note]
