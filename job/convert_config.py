"""Convert the reference's config.json: `python -m job.convert_config config.json --out C`."""

if __name__ == "__main__":  # the imports below take seconds
    from job.options import begin

    begin("job.convert_config")

import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from data.files import PathError, put_file, read_file
from data.settings.dotted_keys import nested
from job.options.convert_config import command_line
from job.settings.checks import check
from job.settings.cli import read_config, run
from job.settings.paths import named_path, output_file
from job.settings.reference.config import SAME, converted
from job.settings.reference.project import CONFIG_YML, find_project, of_project, wavlm_of

HEADER = """\
# Made by job.convert_config from {source}; docs/migrating.md tells more.
# Set run.name, data.shards, and data.transcript if it is not below. data.plan.max_frames is
# train.batch_size clips of 1000 frames, the longest that the reference trains on. On several GPUs
# set train.micro_batches_per_step to their number, which config.json does not hold.
# Not used of it:
{not_used}
"""


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    args = command_line().parse_args(list(argv))
    out = output_file("--out", args.out)
    root = None if args.data_root is None else named_path("--data-root", args.data_root)
    text, told = convert(args.config, root)
    put_file(out, text.encode())
    print(f"{args.out}: a configuration for job.prepare and job.train")
    print("\n".join(told))
    return 0


def convert(uri: str, data_root: str | None = None) -> tuple[str, list[str]]:
    """Return the YAML for a config.json, and what to tell of it: above all what is not used.

    Args:
        uri: path or URI of the config.json.
        data_root: folder or URI that the paths in its lists start from; None: that of its project.

    Raises:
        ValueError: it is not a JSON object, is another trainer's, or holds a value that cannot be
            trained with; names it.
        OSError: it cannot be read.
    """
    found = converted(read_reference(uri))
    project = find_project(uri, data_root)
    ours, not_used = of_project(project)
    found.ours |= ours
    if data_root is not None:
        found.ours["data.audio_root"] = data_root
    if "model.slm.path" in found.ours:
        found.ours["model.slm.path"] = wavlm_of(found.ours["model.slm.path"], project.root)
    reasons = found.not_used | {f"{CONFIG_YML}: {key}": why for key, why in not_used.items()}

    lines = "\n".join(f"#   {key}: {reason}" for key, reason in reasons.items())
    source = " ".join(uri.rpartition("/")[2].split())
    text = HEADER.format(source=source, not_used=lines or "#   nothing")
    text += yaml.safe_dump(nested(found.ours), sort_keys=False, allow_unicode=True)
    try:
        check_text(text)
    except ValueError as error:
        raise ValueError(f"{error}{their_name(str(error))}") from error
    return text, found.notes + [f"not used: {key}: {reason}" for key, reason in reasons.items()]


def read_reference(uri: str) -> dict:
    """Read a config.json.

    Raises:
        ValueError: it is not a JSON object.
        OSError: it cannot be read.
    """
    try:
        reference = json.loads(read_file(uri), object_pairs_hook=_section)
    except PathError:
        raise
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{uri} is not JSON: {error}") from error
    except ValueError as error:
        raise ValueError(f"{uri}: {error}") from error
    if not isinstance(reference, dict):
        raise ValueError(
            f"{uri} holds no JSON object of sections: give the reference trainer's config.json"
        )
    return reference


def _section(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a section of a JSON file.

    Raises:
        ValueError: it has a key twice, of which one would be lost.
    """
    section = dict(pairs)
    if len(section) < len(pairs):
        twice = next(key for key in section if [name for name, _ in pairs].count(key) > 1)
        raise ValueError(f"{twice} stands there twice: leave one of them")
    return section


def their_name(error: str) -> str:
    """Return which key of theirs an error is about, to be added; empty if it is named already."""
    theirs = {ours: key for key, names in SAME.items() for ours in names}
    theirs["train.checkpoint.keep"] = f"keep_ckpts of config.json or {CONFIG_YML}"
    named = theirs.get(error.split(" ")[0], "")
    return f" (there: {named})" if named and not error.startswith(named) else ""


def check_text(text: str) -> None:
    """Refuse YAML that is not a configuration, or that job.train would refuse.

    Raises:
        ValueError: names the key.
    """
    # through a file, as users' configurations come: the same checks, the same errors
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "converted.yaml")
        file.write_text(text, encoding="utf-8")
        try:
            cfg = read_config(file)
        except ValueError as error:
            # the user has another file, whose lines are others
            raise ValueError(re.sub(rf"^{re.escape(str(file))}:\d+: ", "", str(error))) from error
    check(cfg)


if __name__ == "__main__":
    run(main)
