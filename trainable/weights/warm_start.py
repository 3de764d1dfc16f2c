"""Start from other weights: published ones, a run of this trainer, or a model of the hub."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from data.text.languages import LANGUAGES, PUBLISHED, count_tones
from data.text.symbols import symbols
from trainable.config import TrainConfig
from trainable.learning.optimizer import Moments, load_moments
from trainable.networks.registry import GENERATOR
from trainable.run.checkpoint import mismatches, weights_file
from trainable.run.format import CHECKSUMS, TRAINING, read_info, weights_name
from trainable.run.tensor_files import load_safetensors, load_tensors
from trainable.weights.published import (
    ADAMW,
    CALLED,
    LEAVE,
    Published,
    misnamed,
    named_step,
    newest,
    prefixes,
    read_published,
)
from trainable.weights.sources import folder_of
from trainable.weights.speakers import SPEAKERS, Speakers, match_speakers, speakers_of

# rows per symbol, tone and language
OF_LANGUAGES = ("enc_p.emb.weight", "enc_p.tone_emb.weight", "enc_p.language_emb.weight")
PARTS_SHOWN = 6


@dataclass
class Taken:
    """What was taken over.

    Attributes:
        report: what was taken over of each network, and every tensor that is missing, unknown or
            misshaped.
        learning_rates: learning rates of the networks whose optimizers were taken over.
        initial: which parameters keep their initial values, and their share; empty if none do.
        step: step that the name of the generator's file tells; 0 if none does.
        epoch: epochs that the generator was trained for.
    """

    report: list[str] = field(default_factory=list)
    learning_rates: dict[str, float] = field(default_factory=dict)
    initial: str = ""
    step: int = 0
    epoch: int = 0


@dataclass(frozen=True)
class Fitted:
    """Published weights in the shapes of a network.

    Attributes:
        published: the whole state dict, with the optimizer's state that goes with it.
        report: what was taken over and what was not.
        initial: tensor -> how many of its numbers keep their initial values, where some do.
    """

    published: Published
    report: list[str]
    initial: dict[str, int]


def warm_start(
    source: str,
    nets: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer] | None = None,
    endpoint: str | None = None,
    speakers: Mapping[str, int] | None = None,
) -> Taken:
    """Take over what fits of other weights, in place.

    Nothing is changed before all of them are read and fit. Rows of the speaker table are matched by
    name where the source names its speakers, as our checkpoints and config.json do.

    Args:
        source: `train.init_from`: a folder or URI of published files, any combination of the
            networks, or of a run, its best checkpoint or another of this trainer; or a name on the
            hub.
        nets: name -> network, not wrapped.
        optimizers: network -> its optimizer, to take over the states too; None leaves them.
        endpoint: mirror of the hub.
        speakers: name -> row of the speaker table here; None: rows are matched by number.

    Raises:
        ValueError: there is no file, or one is damaged, holds pickled code or NaN, is of another
            architecture, or has no optimizer state where that is asked for.
    """
    with_optimizers = optimizers is not None
    try:
        with folder_of(source, endpoint) as folder:
            found = read_folder(folder, nets, with_optimizers)
            ignored = misnamed(path.name for path in folder.iterdir())
            matched = None if speakers is None else Speakers(speakers, speakers_of(folder))
            fitted = {
                name: fit(found[name][1], net, found[name][0], with_optimizers, matched)
                for name, net in nets.items()
                if name in found
            }
    except ValueError as error:
        raise ValueError(f"train.init_from {source}: {error}") from error

    # from here on nothing fails
    files = {name: file for name, (file, _) in found.items()}
    taken = Taken(_unmatched(nets, files), step=named_step(files.values()))
    taken.report += [
        f"{name} is not read: it is no name of a network's file, {CALLED}" for name in ignored
    ]
    if GENERATOR in found:
        taken.epoch = found[GENERATOR][1].epoch
    taken.initial = _initial(nets, {name: own.initial for name, own in fitted.items()})
    for name, own in fitted.items():
        taken.report += own.report
        nets[name].load_state_dict(own.published.weights)
        if optimizers is not None:
            assert own.published.moments is not None
            load_moments(nets[name], optimizers[name], own.published.moments)
            if own.published.learning_rate is not None:
                taken.learning_rates[name] = own.published.learning_rate
    return taken


def _unmatched(nets: Mapping[str, nn.Module], files: Mapping[str, str]) -> list[str]:
    """Name the networks without a file, and the files without a network.

    Args:
        nets: name -> network.
        files: name of a network -> name of its file.
    """
    lines = []
    for name, prefix in prefixes().items():
        if name in nets and name not in files:
            lines.append(f"{prefix}_* is missing: network `{name}` keeps its initial weights")
        elif name in files and name not in nets:
            lines.append(f"{files[name]} is not used: model.* asks for no network `{name}`")
    return lines


def _initial(nets: Mapping[str, nn.Module], kept: Mapping[str, Mapping[str, int]]) -> str:
    """Return which parameters keep their initial values, and their share; empty if none do.

    Args:
        nets: name -> network.
        kept: network -> tensor -> numbers that keep them, of networks that have a file.
    """
    told = []
    for name, net in nets.items():
        count = sum(t.numel() for t in net.state_dict().values())
        if name not in kept:
            told.append(f"{name}: all, it has no file")
        elif own := kept[name]:
            parts = list(dict.fromkeys(key.partition(".")[0] for key in own))
            shown = ", ".join(parts[:PARTS_SHOWN]) + ", ..." * (len(parts) > PARTS_SHOWN)
            told.append(f"{name}: {sum(own.values()) / count:.1%} ({shown})")
    return "; ".join(told)


def check_first_step(train: TrainConfig, step: int) -> None:
    """Refuse weights whose steps leave none to train.

    Args:
        train: the training.
        step: step at which a run begins that takes them over.

    Raises:
        ValueError: names the keys.
    """
    if step >= train.max_steps:
        raise ValueError(
            f"train.init_from {train.init_from} begins at step {step}, and train.max_steps "
            f"{train.max_steps} counts these steps too: raise it, or set train.init_step 0"
        )


def read_folder(
    folder: Path, nets: Mapping[str, nn.Module], optimizer: bool
) -> dict[str, tuple[str, Published]]:
    """Return network -> (name of its file, what it holds).

    Args:
        folder: local folder of published files, or of a checkpoint.
        nets: name -> network.
        optimizer: read the optimizers' states too.

    Raises:
        ValueError: a file is damaged.
    """
    if (folder / CHECKSUMS).exists():
        networks = read_checkpoint(folder, optimizer)
        return {name: (weights_name(name), own) for name, own in networks.items()}

    found = {}
    for name, file in newest(path.name for path in folder.iterdir()).items():
        buffers = {key for key, _ in nets[name].named_buffers()} if name in nets else set()
        found[name] = file, read_published(folder / file, buffers, optimizer)
    return found


def read_checkpoint(
    folder: Path, optimizer: bool = True, generator: str = "g"
) -> dict[str, Published]:
    """Return the networks of a checkpoint of this trainer.

    Args:
        folder: local folder of the checkpoint.
        optimizer: with the optimizers' states.
        generator: which of GENERATORS the generator has; averaged weights have no optimizer.

    Raises:
        CheckpointError: it is damaged, or holds no averaged weights.
    """
    epoch = read_info(folder).position.epoch
    training = load_tensors(folder / TRAINING)
    found = {}
    for name, moments in training["moments"].items():
        source = generator if name == "g" else name
        tensors = load_safetensors(weights_file(folder, source))
        # safetensors sorts its entries; parameters come in the network's order, then the buffers
        order = [*moments, *(key for key in tensors if key not in moments)]
        found[name] = Published(
            weights={key: tensors[key] for key in order},
            moments=moments if optimizer and source == name else None,
            learning_rate=training["learning_rates"][name],
            epoch=epoch,
        )
    return found


def fit(
    published: Published,
    net: nn.Module,
    file: str,
    optimizer: bool,
    speakers: Speakers | None = None,
) -> Fitted:
    """Bring published weights to the shapes of a network; what does not fit keeps its value.

    Args:
        published: what the file holds.
        net: the network, which is not changed.
        file: name of the file, for the report.
        optimizer: fit the optimizer's state too.
        speakers: whose the rows of the speaker tables are; None: rows of equal numbers are alike.

    Raises:
        ValueError: fewer than half of the network's tensors fit, or some hold NaN or infinity.
    """
    if optimizer and published.moments is None:
        raise ValueError(f"{file} holds no optimizer state: {LEAVE}")
    own = net.state_dict()
    weights = dict(published.weights)
    notes: list[str] = []
    moments: Moments = {key: dict(entry) for key, entry in (published.moments or {}).items()}
    new_rows = _new_rows(weights, own, speakers)
    if speakers is not None and (note := match_speakers(speakers, weights, moments, own)):
        notes.append(note)
    for table in tables_to_resize(weights, own):
        notes.append(_resize(table, weights, moments, own))

    wrong = mismatches(weights, own)
    taken = {
        key: weights[key].to(t.dtype)
        for key, t in own.items()
        if key in weights and weights[key].shape == t.shape
    }
    _check_architecture(file, len(taken), len(own), wrong)
    moments = _moments_of_taken(moments, taken, net)
    _check_finite(file, taken, moments)

    silent = _silent_projections(weights, own)
    notes += [
        f"{key} is set to zero, so that the voice speaks as it did before it had one"
        for key in silent
    ]
    lines = [f"{len(taken)} of {len(own)} tensors are taken over"]
    if optimizer:
        lines.append(
            f"the optimizer's state of {len(moments)} parameters too, "
            f"learning rate {published.learning_rate}"
        )
    whole = replace(
        published, weights={**own, **taken, **silent}, moments=moments if optimizer else None
    )
    initial = {key: t.numel() for key, t in own.items() if key not in taken | silent} | new_rows
    return Fitted(whole, [f"{file}: {line}" for line in (*lines, *notes, *wrong)], initial)


def _check_architecture(file: str, taken: int, own: int, wrong: list[str]) -> None:
    """Refuse a file of which few tensors fit: a network would start from scratch unnoticed.

    Args:
        file: name of the file.
        taken: number of tensors that fit; a few do by chance.
        own: number of the network's tensors.
        wrong: what does not fit.

    Raises:
        ValueError: fewer than half fit.
    """
    if 2 * taken < own:
        raise ValueError(
            f"{file} is of another architecture, only {taken} of {own} tensors fit: "
            f"{'; '.join(wrong[:3])}. Set model.* as its publisher did, "
            "or take the file out of the folder to start that network from scratch"
        )


def _silent_projections(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return zeros for the projections of BERT features that a file lacks.

    Early 2.x files lack some, and all files lack those of further languages.

    Args:
        weights: tensors of the file.
        own: tensors of the network.
    """
    projections = tuple(f"enc_p.{language.projection}." for language in LANGUAGES.values())
    return {
        key: torch.zeros_like(t)
        for key, t in own.items()
        if key not in weights and key.startswith(projections)
    }


def _new_rows(
    theirs: Mapping[str, Tensor], own: Mapping[str, Tensor], speakers: Speakers | None
) -> dict[str, int]:
    """Return table -> numbers of its rows that a file has no row for.

    Args:
        theirs: tensors of the file.
        own: tensors of the network.
        speakers: see `fit`.
    """
    found = {}
    for table in (SPEAKERS, *OF_LANGUAGES):
        if table in theirs and table in own and theirs[table].shape[1:] == own[table].shape[1:]:
            rows = len(own[table]) - len(theirs[table])
            if table == SPEAKERS and speakers is not None and speakers.theirs is not None:
                # rows that no speaker has wait for one
                rows = len(speakers.ours) - len(speakers.rows())
            if rows > 0:
                found[table] = rows * own[table][0].numel()
    return found


def _resize(
    table: str, weights: dict[str, Tensor], moments: Moments, own: Mapping[str, Tensor]
) -> str:
    """Bring a table of a file to the rows of ours, in place; return what to report.

    Args:
        table: its name.
        weights: tensors of the file.
        moments: optimizer's state of the file.
        own: tensors of the network.
    """
    theirs = weights[table]
    ours = own[table]
    rows = min(len(theirs), len(ours))
    weights[table] = resized(theirs, ours)
    moments[table] = {
        key: resized(t, torch.zeros_like(ours)) if t.shape == theirs.shape else t
        for key, t in moments.get(table, {}).items()
    }
    return (
        f"{table} has {len(theirs)} rows: the first {rows} of the {len(ours)} here are taken over"
    )


def tables_to_resize(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> list[str]:
    """Return the tables that differ in their number of rows alone, and whose first rows are alike.

    These are the table of speakers, and those of the text encoder where the network has languages
    of `data.text.languages` that the weights have not: they are appended there.
    """
    rows: dict[str, set[int]] = {table: set() for table in OF_LANGUAGES}
    known = tuple(LANGUAGES.values())
    for count in range(len(PUBLISHED), len(known)):
        languages = known[:count]
        sizes = (len(symbols(languages)), count_tones(languages), count)
        for table, size in zip(OF_LANGUAGES, sizes, strict=True):
            rows[table].add(size)

    found = []
    for table in (SPEAKERS, *OF_LANGUAGES):
        if table in theirs and table in ours and theirs[table].shape[1:] == ours[table].shape[1:]:
            before, now = len(theirs[table]), len(ours[table])
            if before != now and (table == SPEAKERS or (before in rows[table] and before < now)):
                found.append(table)
    return found


def resized(theirs: Tensor, ours: Tensor) -> Tensor:
    """Return a table [n, width] with the rows of `ours`: theirs as far as they go."""
    rows = min(len(theirs), len(ours))
    return torch.cat([theirs[:rows].to(ours), ours[rows:]])


def _moments_of_taken(
    moments: Moments, taken: Mapping[str, Tensor], net: nn.Module
) -> dict[str, dict[str, Tensor]]:
    """Return the optimizer's state of those parameters that are taken over, where it fits."""
    return {
        key: moments[key]
        for key, p in net.named_parameters()
        if key in taken
        and moments.get(key)
        and all(moments[key][kind].shape == p.shape for kind in ADAMW[1:])
    }


def _check_finite(file: str, taken: Mapping[str, Tensor], moments: Moments) -> None:
    tensors = dict(taken)
    for key, entry in moments.items():
        tensors |= {f"{key}.{kind}": t for kind, t in entry.items()}
    broken = [key for key, value in tensors.items() if not torch.isfinite(value).all()]
    if broken:
        names = ", ".join(broken[:3])
        raise ValueError(f"{file} is refused: NaN or infinity in {names} ({len(broken)} tensors)")
