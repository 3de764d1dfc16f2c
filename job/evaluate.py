"""Score a checkpoint: `python -m job.evaluate --checkpoint RUN|RUN/best|CHECKPOINT [--out FOLDER]`.

It prints a table and writes evaluation.json and evaluation.html, a page with sounds and pictures
that needs nothing else. A checkpoint may come from a stranger: scorers that it names are left out
if they would run code of others.
"""

if __name__ == "__main__":  # the imports below take seconds
    from job.options import begin

    begin("job.evaluate")

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from data.files import below, put_file
from job.options.evaluate import command_line
from job.reports.console import cell, table
from job.reports.evaluation import group_means, report_page, score_columns, utterance_scores
from job.settings.cli import read_saved_config, run
from job.settings.config import Config
from job.settings.paths import named_path, output_folder
from job.voice.device import device_of
from job.voice.scoring import Scores, harmless, load_generator, score
from job.voice.source import opened, source_of
from trainable.run.format import CONFIG, CheckpointInfo, read_info
from trainable.run.storage import resolve
from trainable.weights.sources import is_published


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    args = command_line().parse_args(list(argv))
    check(args)
    out = output_folder("--out", args.out) if args.out is not None else None
    source = source_of(args.checkpoint)
    published = is_published(source)
    if published and (out is None or args.shards is None):
        raise ValueError(
            "--out or --shards is missing: published files have neither a run's folder nor data"
        )
    uri = source if published else resolve(source)
    with opened(uri, args.weights) as folder:
        info = read_info(folder)
        cfg = read_saved_config(folder / CONFIG)
        g = load_generator(folder, cfg, info, args.weights).to(args.device)

    # from here on, the checkpoint's own configuration rules, as its validation did
    cfg = configured(cfg, args)
    scores = score(g, cfg, args.split, info.speakers, other_corpus=bool(args.shards))
    content = described(scores, cfg, info, uri, args)
    tags, rows = score_columns(content["scores"])
    shown = [[name, *map(cell, values)] for name, *values in rows]
    print(table(["", *tags], shown, align_right=True))

    out = out or below(uri.rpartition("/")[0], f"evaluation_{info.position.step:09d}")
    page = report_page(content, scores.evaluation.samples, cfg.data, out)
    files = {
        "evaluation.json": json.dumps(content, ensure_ascii=False, indent=1),
        "evaluation.html": page,
    }
    for name, text in files.items():
        put_file(below(out, name), text.encode())
        print(below(out, name))
    return 0


def check(args: argparse.Namespace) -> None:
    """Refuse options that make no sense.

    Raises:
        ValueError: names the option.
    """
    lowest = {"--utterances": 1, "--syntheses": 0, "--samples": 0}
    for option, low in lowest.items():
        given = getattr(args, option[2:])
        if given is not None and given < low:
            raise ValueError(f"{option} is {given}: give a number from {low}")
    args.device = device_of(args.device)


def configured(cfg: Config, args: argparse.Namespace) -> Config:
    """Return a checkpoint's configuration with what the command line says otherwise."""
    given = {
        "max_utterances": args.utterances,
        "syntheses": args.syntheses,
        "samples": args.samples,
    }
    counts = {key: count for key, count in given.items() if count is not None}
    scorers = cfg.eval.scorers if args.trust_scorers else harmless(cfg.eval.scorers)
    shards = cfg.data.shards if args.shards is None else named_path("--shards", args.shards)
    return replace(
        cfg,
        data=replace(cfg.data, shards=shards),
        eval=replace(cfg.eval, scorers=scorers, **counts),
    )


def described(
    scores: Scores, cfg: Config, info: CheckpointInfo, uri: str, args: argparse.Namespace
) -> dict[str, Any]:
    """Return the content of evaluation.json.

    Args:
        scores: what was found.
        cfg: the configuration by which it was found.
        info: what the checkpoint says of itself.
        uri: where the checkpoint lies.
        args: the command line.
    """
    found = (scores.evaluation, scores.rows, scores.manifest)
    return {
        "checkpoint": uri,
        "step": info.position.step,
        "weights": args.weights,
        "split": args.split,
        "seed": cfg.train.seed,
        "scores": group_means(*found),
        "utterances": utterance_scores(*found),
        "history": [asdict(validation) for validation in info.validations],
    }


if __name__ == "__main__":
    run(main)
