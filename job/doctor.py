"""Find out whether a machine or cluster is fit for a run: `python -m job.doctor --config C`.

It looks at every node that is up, and prints what it found, one line per check, and what to do
about what is wrong. It ends with status 1 if something would stop the run, so that it can stand
before `job.train` in a job.
"""

if __name__ == "__main__":  # the imports below take seconds
    from job.options import begin

    begin("job.doctor")

from collections.abc import Sequence

import ray

from job.on_ray.cluster import ray_session
from job.on_ray.health import fitness, needs, nodes
from job.on_ray.health.fitness import Check
from job.on_ray.training import settled
from job.reports.console import table
from job.settings.cli import parse, parser, run
from job.settings.config import Config
from job.settings.paths import with_absolute_paths


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    made = parser("python -m job.doctor", "Find out whether a machine or cluster is fit for a run.")
    cfg, _ = parse(made, argv)
    checks = examine(with_absolute_paths(cfg))

    print(table(("check", "state", "found"), [(c.name, c.state, c.found) for c in checks]))
    for each in checks:
        if each.fix:
            print(f"{each.name}: {each.fix}")

    failed = [each.name for each in checks if each.state == "FAIL"]
    print(f"not fit: {', '.join(failed)}" if failed else "fit")
    return 1 if failed else 0


def examine(cfg: Config) -> list[Check]:
    """Return all checks, of the configuration and of every node that is up."""
    with ray_session(cfg):
        cfg = settled(cfg)
        reports, skew = nodes.reports(fitness.PACKAGES, cfg.run.storage, cfg.train)
        up = nodes.alive()
        return [
            *fitness.configuration(cfg),
            *needs.transcript(cfg),
            *needs.models(cfg, reports),
            *fitness.versions(reports),
            *fitness.gpus(cfg, reports),
            *fitness.compilers(cfg, reports),
            *fitness.full_size_without_gpu(cfg, reports),
            fitness.locales(reports),
            *fitness.storage(cfg, reports),
            fitness.clocks(skew),
            *fitness.room(reports),
            fitness.cpus_for_data(cfg, ray.cluster_resources()),
            fitness.connections(len(up), nodes.broken_connections(up)),
        ]


if __name__ == "__main__":
    run(main)
