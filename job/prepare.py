"""Turn recordings and a transcript into shards: `python -m job.prepare --config C`."""

from collections.abc import Sequence

from data.corpus.prepare import prepare
from data.corpus.transcript import read_transcript
from data.files import below
from job.on_ray.cluster import on_cluster, ray_session
from job.settings.cli import parse, parser, run
from job.settings.models import berts, check_models
from job.settings.paths import with_absolute_paths


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    made = parser("python -m job.prepare", "Turn recordings and a transcript into shards.")
    cfg, _ = parse(made, argv)
    cfg = with_absolute_paths(cfg)
    data = cfg.data
    transcript = read_transcript(
        data.transcript, data.audio_root, data.max_reject_share, data.layout, data.language
    )
    languages = transcript.lines.words("language")
    check_models(berts(cfg.data, languages), hub_is_needed=not on_cluster())
    with ray_session(cfg):
        manifest = prepare(cfg.data, transcript)

    utterances = len(manifest)
    print(f"shards: {manifest.uri}, {utterances} utterances, {len(manifest.speakers)} speakers")
    report = below(manifest.uri, "report.html")
    print(f"report: {report}, rejected lines in rejects.jsonl beside it")
    return 0


if __name__ == "__main__":
    run(main)
