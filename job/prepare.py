"""Turn recordings and a transcript into shards: `python -m job.prepare --config C`."""

from collections.abc import Sequence

from data.prepare import prepare
from job.cli import parse, parser, run
from job.cluster import ray_session
from job.paths import with_absolute_paths


def main(argv: Sequence[str]) -> int:
    """The command."""
    cfg, _ = parse(parser("python -m job.prepare", "Turn recordings and a transcript into shards."), argv)
    cfg = with_absolute_paths(cfg)
    if not cfg.data.transcript:
        raise ValueError("data.transcript is not set: name the file of lines `path|speaker|language|text`")
    with ray_session(cfg):
        manifest = prepare(cfg.data)
    print(f"shards: {manifest.uri}, {manifest.table.num_rows} utterances, {len(manifest.speakers)} speakers")
    return 0


if __name__ == "__main__":
    run(main)
