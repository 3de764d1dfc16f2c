"""From recordings to a transcript: `python -m job.transcribe --recordings FOLDER --out OUT`.

`--check TRANSCRIPT` in place of `--recordings` compares a transcript that is there with what a
recogniser hears. docs/transcribe.md has the details.
"""

if __name__ == "__main__":  # the imports below take seconds
    from job.options import begin

    begin("job.transcribe")

import importlib.util
from collections.abc import Sequence

from jsonargparse import Namespace

from data.config import DataConfig
from data.transcribe.transcribe import Check, Task, Transcription, work_through
from job.on_ray.cluster import on_cluster, ray_session
from job.options.transcribe import command_line
from job.settings.cli import parse, run
from job.settings.models import check_recogniser
from job.settings.paths import named_path, output_folder, with_absolute_paths


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    cfg, args = parse(command_line(), argv)
    cfg = with_absolute_paths(cfg)
    task = task_of(args, cfg.data)
    if task.work.items:
        with ray_session(cfg):
            work_through(task, cfg.data)
    print(task.finish())
    return 0


def task_of(args: Namespace, cfg: DataConfig) -> Task:
    """Check all that can be checked before anything starts; return what there is to do.

    Raises:
        ValueError: names the option or key.
        OSError: something cannot be read.
    """
    if (args.recordings is None) == (args.check is None):
        raise ValueError("give --recordings FOLDER, or --check TRANSCRIPT: one of them")
    if args.out is None:
        raise ValueError("give --out FOLDER, which is written")
    out = output_folder("--out", args.out)
    if args.check is not None:
        require("rapidfuzz")
        check_recogniser(cfg.asr, hub_is_needed=not on_cluster())
        return Check(cfg, named_path("--check", args.check), out)
    require("silero_vad")
    check_recogniser(cfg.asr, hub_is_needed=not on_cluster())
    return Transcription(cfg, named_path("--recordings", args.recordings), out)


def require(package: str) -> None:
    """Refuse to begin without a package of the extra `transcribe`.

    Raises:
        ValueError: says what to type.
    """
    if importlib.util.find_spec(package) is None:
        raise ValueError(f"job.transcribe needs {package}: python -m pip install '.[transcribe]'")


if __name__ == "__main__":
    run(main)
