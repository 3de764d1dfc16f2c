"""Options of job.convert_config."""

from job.settings.cli import Arguments


def command_line() -> Arguments:
    """Return the parser of the command's options."""
    made = Arguments("python -m job.convert_config", "Convert a config.json of Bert-VITS2 2.3.")
    made.add_argument("config", help="file or URI of the config.json")
    made.add_argument("--out", required=True, help="file or URI to write the YAML to")
    made.add_argument(
        "--data-root",
        help="folder or URI that the paths in its lists start from; default: the folder of the "
        "config.yml that lies beside config.json, or above it",
    )
    return made
