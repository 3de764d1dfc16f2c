"""Start from other weights: published ones, a run of this trainer, or a model of the hub."""

import contextlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import fsspec
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from trainable.learning.optimizer import Moments, load_moments
from trainable.run.checkpoint import mismatches, weights_file
from trainable.run.format import read_info
from trainable.run.storage import fetched, is_here, resolve
from trainable.run.tensor_files import load_tensors
from trainable.weights.hub import download
from trainable.weights.published import (
    ADAMW,
    LEAVE,
    PREFIXES,
    Published,
    needed,
    newest,
    read_published,
)

SPEAKERS = "emb_g.weight"  # [n_speakers, gin_channels]
# early 2.x files have not all three
PROJECTION = re.compile(r"enc_p\.(ja_|en_)?bert_proj\.(weight|bias)")
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


@dataclass
class Taken:
    """What was taken over.

    Attributes:
        report: what of each network was taken over, and every tensor that is missing, unknown or
            misshaped.
        learning_rates: of the networks whose optimizers were taken over.
    """

    report: list[str] = field(default_factory=list)
    learning_rates: dict[str, float] = field(default_factory=dict)


def warm_start(
    source: str,
    nets: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer] | None = None,
    endpoint: str | None = None,
) -> Taken:
    """Take over what fits of other weights, in place; nothing is changed before all of them are read and fit.

    Args:
        source: `train.init_from`: a folder or URI of published files, any combination of the
            networks, or of a run, its best checkpoint or another of this trainer; or a name on the
            hub.
        nets: name -> network, not wrapped.
        optimizers: of the networks, to take over their states too; None leaves them.
        endpoint: mirror of the hub.

    Raises:
        ValueError: there is no file, or one is damaged, holds pickled code or NaN, is of another
            architecture, or has no optimizer state where that is asked for.
    """
    try:
        with folder_of(source, endpoint) as folder:
            found = read_folder(folder, nets, optimizers is not None)
            fitted = {
                name: fit(found[name][1], net, found[name][0], optimizers is not None)
                for name, net in nets.items()
                if name in found
            }
    except ValueError as error:
        raise ValueError(f"train.init_from {source}: {error}") from error
    taken = Taken()
    for name, prefix in PREFIXES.items():
        if name in nets and name not in found:
            taken.report.append(
                f"{prefix}_* is missing: network `{name}` keeps its initial weights"
            )
        elif name in found and name not in nets:
            taken.report.append(
                f"{found[name][0]} is not used: model.* asks for no network `{name}`"
            )
    for name, (published, notes) in fitted.items():
        taken.report += notes
        nets[name].load_state_dict(published.weights)
        if optimizers is not None:
            assert published.moments is not None
            load_moments(nets[name], optimizers[name], published.moments)
            if published.learning_rate is not None:
                taken.learning_rates[name] = published.learning_rate
    return taken


@contextlib.contextmanager
def folder_of(source: str, endpoint: str | None) -> Iterator[Path]:
    """The files of a source as a local folder: published ones, or a checkpoint of this trainer.

    Raises:
        ValueError: there is nothing of the kind.
    """
    if "://" not in source and not is_here(source) and HUB_NAME.fullmatch(source):
        yield download(source, needed, endpoint)
        return
    fs, root = fsspec.core.url_to_fs(source)
    names = (
        [path.rpartition("/")[2] for path in fs.ls(root, detail=False)] if fs.isdir(root) else []
    )
    files = needed(names)
    if not files:
        try:
            checkpoint = resolve(source)
        except ValueError as error:
            raise ValueError(
                "holds neither published weights (G_*, D_*, DUR_*, WD_* .pth or .safetensors) nor a run or checkpoint "
                f"of this trainer: {error}"
            ) from error
        with fetched(checkpoint) as folder:
            yield folder
    elif "://" not in source:
        yield Path(root)
    else:
        with tempfile.TemporaryDirectory() as copy:
            for file in files:
                fs.get_file(f"{root}/{file}", f"{copy}/{file}")
            yield Path(copy)


def read_folder(
    folder: Path, nets: Mapping[str, nn.Module], optimizer: bool
) -> dict[str, tuple[str, Published]]:
    """Network -> (name of its file, what it holds).

    Raises:
        ValueError: a file is damaged.
    """
    if (folder / "checksums.json").exists():
        return {
            name: (f"{name}.safetensors", one)
            for name, one in read_checkpoint(folder, optimizer).items()
        }
    buffers = {name: {key for key, _ in net.named_buffers()} for name, net in nets.items()}
    return {
        name: (file, read_published(folder / file, buffers.get(name, set()), optimizer))
        for name, file in newest(path.name for path in folder.iterdir()).items()
    }


def read_checkpoint(
    folder: Path, optimizer: bool = True, generator: str = "g"
) -> dict[str, Published]:
    """The networks of a checkpoint of this trainer.

    Args:
        folder: of the checkpoint.
        optimizer: with the optimizers' states.
        generator: which of GENERATORS the generator has; averaged weights have no optimizer.

    Raises:
        CheckpointError: it is damaged, or holds no averaged weights.
    """
    epoch = read_info(folder).position.epoch
    training = load_tensors(folder / "training.pt")
    found = {}
    for name, moments in training["moments"].items():
        source = generator if name == "g" else name
        tensors = load_file(weights_file(folder, source))
        # safetensors sorts its entries
        order = [*moments, *(key for key in tensors if key not in moments)]
        weights = {key: tensors[key] for key in order}
        found[name] = Published(
            weights,
            moments if optimizer and source == name else None,
            training["learning_rates"][name],
            epoch,
        )
    return found


def fit(
    published: Published, net: nn.Module, file: str, optimizer: bool
) -> tuple[Published, list[str]]:
    """Bring published weights to the shapes of a network; what does not fit keeps its initial value.

    Args:
        published: what the file holds.
        net: the network, which is not changed.
        file: its name, for the report.
        optimizer: fit the optimizer's state too.

    Returns:
        The whole state dict, with the optimizer's state that goes with it; and lines of the report.

    Raises:
        ValueError: fewer than half of the network's tensors fit, or some hold NaN or infinity.
    """
    if optimizer and published.moments is None:
        raise ValueError(f"{file} holds no optimizer state: {LEAVE}")
    own, weights, notes = net.state_dict(), dict(published.weights), []
    moments: Moments = {key: dict(entry) for key, entry in (published.moments or {}).items()}
    theirs, ours = weights.get(SPEAKERS), own.get(SPEAKERS)
    if (
        theirs is not None
        and ours is not None
        and theirs.shape != ours.shape
        and theirs.shape[1:] == ours.shape[1:]
    ):
        rows = min(len(theirs), len(ours))
        weights[SPEAKERS] = resized(theirs, ours)
        moments[SPEAKERS] = {
            key: resized(t, torch.zeros_like(ours)) if t.shape == theirs.shape else t
            for key, t in moments.get(SPEAKERS, {}).items()
        }
        notes.append(
            f"{SPEAKERS} has {len(theirs)} rows: the first {rows} of the {len(ours)} here are taken over"
        )
    wrong = mismatches(weights, own)
    taken = {
        key: weights[key].to(t.dtype)
        for key, t in own.items()
        if key in weights and weights[key].shape == t.shape
    }
    if 2 * len(taken) < len(own):
        raise ValueError(
            f"{file} is of another architecture, only {len(taken)} of {len(own)} tensors fit: {'; '.join(wrong[:3])}. "
            "Set model.* as its publisher did, or take the file out of the folder to start that network anew"
        )
    moments = {
        key: moments[key]
        for key, p in net.named_parameters()
        if key in taken
        and moments.get(key)
        and all(moments[key][kind].shape == p.shape for kind in ADAMW[1:])
    }
    tensors = [
        *taken.items(),
        *((f"{key}.{kind}", t) for key, entry in moments.items() for kind, t in entry.items()),
    ]
    broken = [key for key, value in tensors if not torch.isfinite(value).all()]
    if broken:
        raise ValueError(
            f"{file} is refused: NaN or infinity in {', '.join(broken[:3])} ({len(broken)} tensors)"
        )
    silent = {
        key: torch.zeros_like(t)
        for key, t in own.items()
        if key not in weights and PROJECTION.fullmatch(key)
    }
    notes += [
        f"{key} is set to zero, so that the voice speaks as it did before it had one"
        for key in silent
    ]
    lines = [f"{len(taken)} of {len(own)} tensors are taken over"]
    if optimizer:
        lines.append(
            f"the optimizer's state of {len(moments)} parameters too, learning rate {published.learning_rate}"
        )
    whole = replace(
        published, weights={**own, **taken, **silent}, moments=moments if optimizer else None
    )
    return whole, [f"{file}: {line}" for line in (*lines, *notes, *wrong)]


def resized(theirs: Tensor, ours: Tensor) -> Tensor:
    """A speaker table [n, gin] with the rows of `ours`; rows beyond those of `theirs` are ours."""
    rows = min(len(theirs), len(ours))
    return torch.cat([theirs[:rows].to(ours), ours[rows:]])
