"""Turn recordings and a transcript into shards: `python -m job.prepare --config C`."""

from collections.abc import Sequence

from data.corpus.prepare import prepare
from data.files import below
from job.on_ray.cluster import ray_session
from job.settings.cli import parse, parser, run
from job.settings.paths import with_absolute_paths


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    made = parser("python -m job.prepare", "Turn recordings and a transcript into shards.")
    cfg, _ = parse(made, argv)
    cfg = with_absolute_paths(cfg)
    with ray_session(cfg):
        manifest = prepare(cfg.data)

    utterances = manifest.table.num_rows
    print(f"shards: {manifest.uri}, {utterances} utterances, {len(manifest.speakers)} speakers")
    report = below(manifest.uri, "report.html")
    print(f"report: {report}, rejected lines in rejects.jsonl beside it")
    return 0


if __name__ == "__main__":
    run(main)
