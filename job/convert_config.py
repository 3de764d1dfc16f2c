"""Convert the reference's config.json: `python -m job.convert_config config.json --out C`."""

import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from data.files import PathError, put_file, read_file
from job.settings.checks import check
from job.settings.cli import Arguments, read_config, run
from job.settings.paths import output_file
from job.settings.reference_config import converted

HEADER = """\
# Made by job.convert_config from {source}; docs/migrating.md tells more.
# Set run.name, data.transcript and data.shards. data.plan.max_frames is train.batch_size clips of
# 1000 frames, the longest that the reference trains on. On several GPUs set
# train.micro_batches_per_step to their number, which config.json does not hold.
# Not used of it:
{not_used}
"""


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    made = Arguments("python -m job.convert_config", "Convert a config.json of Bert-VITS2 2.3.")
    made.add_argument("config", help="file or URI of the config.json")
    made.add_argument("--out", required=True, help="file or URI to write the YAML to")
    args = made.parse_args(list(argv))

    out = output_file("--out", args.out)
    text, not_used = convert(args.config)
    put_file(out, text.encode())
    print(f"{args.out}: a configuration for job.prepare and job.train")
    for key, reason in not_used.items():
        print(f"not used: {key}: {reason}")
    return 0


def convert(uri: str) -> tuple[str, dict[str, str]]:
    """Return the YAML for a config.json; and for each key that is not used, the reason.

    Raises:
        ValueError: it is not a JSON object, is of another version, or holds a value that cannot be
            trained with; names it.
        OSError: it cannot be read.
    """
    sections, not_used = converted(read_reference(uri))
    lines = "\n".join(f"#   {key}: {reason}" for key, reason in not_used.items())
    source = " ".join(uri.rpartition("/")[2].split())
    text = HEADER.format(source=source, not_used=lines or "#   nothing")
    text += yaml.safe_dump(sections, sort_keys=False, allow_unicode=True)
    check_text(text)
    return text, not_used


def read_reference(uri: str) -> dict:
    """Read a config.json.

    Raises:
        ValueError: it is not a JSON object.
        OSError: it cannot be read.
    """
    try:
        reference = json.loads(read_file(uri))
    except PathError:
        raise
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{uri} is not JSON: {error}") from error
    if not isinstance(reference, dict):
        raise ValueError(
            f"{uri} holds no JSON object of sections: give the reference trainer's config.json"
        )
    return reference


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
