"""Turn recordings and a transcript into shards: `python -m job.prepare --config C`."""

if __name__ == "__main__":  # the imports below take seconds
    from job.options import begin

    begin("job.prepare")

import shlex
from collections.abc import Sequence

from data.corpus.prepare import prepare
from data.corpus.transcript import read_transcript
from data.files import below
from job.on_ray.cluster import on_cluster, ray_session, what_starts
from job.reports.console import stage, starting
from job.settings.cli import parse, parser, run
from job.settings.models import berts, check_models
from job.settings.paths import with_absolute_paths


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    made = parser("python -m job.prepare", "Turn recordings and a transcript into shards.")
    cfg, _ = parse(made, argv)
    cfg = with_absolute_paths(cfg)
    data = cfg.data
    with stage("reading the transcript"):
        transcript = read_transcript(
            data.transcript, data.audio_root, data.max_reject_share, data.layout, data.language
        )
        languages = transcript.lines.words("language")
        check_models(berts(data, languages), hub_is_needed=not on_cluster())
    with starting(what_starts(), ray_session(cfg)):
        manifest = prepare(cfg.data, transcript)

    utterances = len(manifest)
    print(f"shards: {manifest.uri}, {utterances} utterances, {len(manifest.speakers)} speakers")
    report = below(manifest.uri, "report.html")
    print(f"report: {report}\n  rejected lines are in rejects.jsonl beside it")
    print("what next:\n  look at the report, then train with the same settings:")
    print(f"    {train(argv)}")
    return 0


def train(argv: Sequence[str]) -> str:
    """Return the command that trains on what a command line prepares."""
    return shlex.join(["python", "-m", "job.train", *argv])


if __name__ == "__main__":
    run(main)
