"""Score a checkpoint: `python -m job.evaluate --checkpoint RUN|RUN/best|CHECKPOINT [--out FOLDER]`.

Prints a table and writes evaluation.json and evaluation.html, a page with sounds and pictures that
needs nothing else. A checkpoint may come from a stranger: scorers that it names and that would run
code of others are left out.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from data.config import DataConfig
from data.files import below, put_file
from data.shards.manifest import SPLITS, Manifest, read_manifest
from data.stream.loading import BadRowsError
from data.stream.pipeline import Damage, StreamSpec, evaluation_rows, evaluation_set
from job.reports.evaluation import report_page
from job.settings.cli import read_config, run
from job.settings.config import Config
from trainable.config import GENERATORS, ScorerConfig
from trainable.evaluation.evaluate import Evaluation, evaluate
from trainable.evaluation.scorers import WEIGHTS_ONLY, load_scorers
from trainable.hardware import set_up_torch
from trainable.learning.state import alignment_noise, build_generator
from trainable.networks.generator.synthesizer import SynthesizerTrn
from trainable.run.checkpoint import load_weights
from trainable.run.format import CheckpointInfo, read_info
from trainable.run.storage import fetched, resolve
from trainable.settings import check_fits

OVERALL = "all"


def main(argv: Sequence[str]) -> int:
    """The command."""
    made = argparse.ArgumentParser(
        "python -m job.evaluate", description="Score a checkpoint, and listen to it."
    )
    made.add_argument(
        "--checkpoint", required=True, help="a checkpoint, a run (its newest one) or RUN/best"
    )
    made.add_argument(
        "--out", help="folder or URI to write to; below the run's folder if not given"
    )
    made.add_argument("--shards", help="prepared data; those of the training if not given")
    made.add_argument("--split", choices=SPLITS, default="validation")
    made.add_argument(
        "--utterances", type=int, help="how many are scored; eval.max_utterances if not given"
    )
    made.add_argument(
        "--syntheses",
        type=int,
        help="how many of them are spoken freely; eval.syntheses if not given",
    )
    made.add_argument(
        "--samples", type=int, default=8, help="how many of these are heard and seen in the report"
    )
    made.add_argument(
        "--weights",
        choices=GENERATORS,
        default="g",
        help="ema: the averaged ones (train.ema_decay)",
    )
    made.add_argument(
        "--trust_scorers",
        action="store_true",
        help="run the checkpoint's eval.scorers, whatever they do",
    )
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = made.parse_args(list(argv))
    uri = resolve(args.checkpoint)
    with fetched(uri) as folder:
        info, cfg = read_info(folder), read_config(folder / "config.yaml")
        g = load_generator(folder, cfg, info, args.weights).to(args.device)
    given = {
        "max_utterances": args.utterances or None,
        "syntheses": args.syntheses,
        "samples": args.samples,
    }
    scorers = cfg.eval.scorers if args.trust_scorers else harmless(cfg.eval.scorers)
    cfg = replace(
        cfg,
        data=replace(cfg.data, shards=args.shards or cfg.data.shards),
        eval=replace(
            cfg.eval, scorers=scorers, **{key: n for key, n in given.items() if n is not None}
        ),
    )
    result, rows, manifest = score(g, cfg, args.split)
    if not len(rows):
        raise ValueError(
            f"{cfg.data.shards}: no utterance is of the split {args.split}; see data.validation_per_speaker"
        )
    content = {
        "checkpoint": uri,
        "step": info.position.step,
        "weights": args.weights,
        "split": args.split,
        "seed": cfg.train.seed,
        "scores": groups(result, rows, manifest),
        "utterances": utterances(result, rows, manifest),
        "history": [asdict(v) for v in info.validations],
    }
    print(table(content["scores"]))
    out = args.out or below(uri.rpartition("/")[0] or ".", f"evaluation_{info.position.step:09d}")
    put_file(
        below(out, "evaluation.json"), json.dumps(content, ensure_ascii=False, indent=1).encode()
    )
    page = report_page(content, result.samples, cfg.data.sampling_rate)
    put_file(below(out, "evaluation.html"), page.encode())
    print(f"{below(out, 'evaluation.json')}\n{below(out, 'evaluation.html')}")
    return 0


def harmless(scorers: Mapping[str, ScorerConfig]) -> dict[str, ScorerConfig]:
    """Those of a checkpoint's scorers that run nothing but code of ours; prints which ones are left out."""
    for name, cfg in scorers.items():
        if cfg.factory not in WEIGHTS_ONLY:
            print(
                f"eval.scorers.{name} is left out: the checkpoint asks for {cfg.factory} with {cfg.path}, which may "
                "run any code. If you trust it: --trust_scorers"
            )
    return {name: cfg for name, cfg in scorers.items() if cfg.factory in WEIGHTS_ONLY}


def load_generator(folder: Path, cfg: Config, info: CheckpointInfo, weights: str) -> SynthesizerTrn:
    """The generator of a checkpoint as the training evaluates it.

    Raises:
        CheckpointError: it does not hold these weights.
    """
    g = build_generator(cfg.model, cfg.train.segment_size, cfg.data)
    load_weights(folder, weights, g)
    g.current_mas_noise_scale = alignment_noise(cfg.model, max(info.position.step - 1, 0))
    return g


def score(g: SynthesizerTrn, cfg: Config, split: str) -> tuple[Evaluation, np.ndarray, Manifest]:
    """Score a generator on a split; the scores, the manifest's rows that they are of, and the manifest.

    Raises:
        ValueError: the data does not fit the networks, or cannot be read.
    """
    device = next(g.parameters()).device
    set_up_torch(cfg.train, cfg.scaling.threads_per_worker, device)
    manifest = read_manifest(cfg.data.shards)
    check_fits(cfg.data, cfg.model, manifest)
    spec = stream_spec(cfg.data, manifest, cfg)
    rows, damage = evaluation_rows(spec, split, cfg.eval.max_utterances), Damage()
    own = evaluation_set(spec, rows, 0, 1, damage)
    result = evaluate(
        g,
        own,
        len(rows),
        cfg.eval,
        cfg.data,
        cfg.train.seed,
        load_scorers(cfg.eval.scorers, device),
    )
    try:
        damage.settle()
    except BadRowsError as error:
        raise ValueError(f"not all utterances could be read: {error}") from error
    return result, rows, manifest


def stream_spec(data: DataConfig, manifest: Manifest, cfg: Config) -> StreamSpec:
    """Of the data that a training with this configuration would see."""
    frames = cfg.train.segment_size // data.hop_length
    return StreamSpec(
        data, manifest.digest, cfg.train.seed, cfg.train.micro_batches_per_step, frames
    )


def groups(result: Evaluation, rows: np.ndarray, manifest: Manifest) -> dict[str, dict[str, float]]:
    """Means of all utterances, of each language and of each speaker: name of the group -> tag -> mean."""
    found = {OVERALL: result.means("")}
    for column in ("language", "speaker"):
        names = manifest.column(column)[rows]
        for name in sorted(set(names)):
            members = Evaluation(result.tags, result.table[names == name])
            found[f"{column} {name}"] = members.means("")
    return found


def utterances(result: Evaluation, rows: np.ndarray, manifest: Manifest) -> list[dict]:
    """Scores of each utterance, beside its id, speaker and language; None where it has no such score."""
    found = []
    for number, (row, values) in enumerate(zip(rows, result.table.tolist(), strict=True)):
        who = {name: manifest.column(name)[row] for name in ("id", "speaker", "language")}
        scores = {
            tag: None if np.isnan(v) else v for tag, v in zip(result.tags, values, strict=True)
        }
        found.append({"number": number, **who, "scores": scores})
    return found


def table(scores: Mapping[str, Mapping[str, float]]) -> str:
    """The groups' means as text, a line a group."""
    tags = list(dict.fromkeys(tag for of in scores.values() for tag in of))
    lines = [["", *tags]]
    lines += [
        [name, *(f"{of[tag]:.4f}" if tag in of else "-" for tag in tags)]
        for name, of in scores.items()
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(tags) + 1)]
    return "\n".join(
        "  ".join(
            [
                line[0].ljust(widths[0]),
                *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True)),
            ]
        )
        for line in lines
    )


if __name__ == "__main__":
    run(main)
