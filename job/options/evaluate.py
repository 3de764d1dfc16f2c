"""Options of job.evaluate."""

from data.shards.manifest import SPLITS
from job.options.voice import add_checkpoint, add_device, add_weights
from job.settings.cli import Arguments, hidden_alias


def command_line() -> Arguments:
    """Return the parser of the command's options."""
    made = Arguments("python -m job.evaluate", "Score a checkpoint, and listen to it.")
    add_checkpoint(made)
    made.add_argument("--out", help="folder or URI to write to; default: below the run's folder")
    made.add_argument("--shards", help="prepared data; default: that of the training")
    made.add_argument(
        "--split", choices=SPLITS, default="validation", help="whose utterances are scored"
    )
    made.add_argument(
        "--utterances", type=int, help="how many are scored; default: eval.max_utterances"
    )
    made.add_argument(
        "--syntheses", type=int, help="how many of them are spoken freely; default: eval.syntheses"
    )
    made.add_argument(
        "--samples", type=int, default=8, help="how many of these the report plays and shows"
    )
    add_weights(made)
    made.add_argument(
        "--trust-scorers",
        action="store_true",
        help="run the checkpoint's eval.scorers, whatever they do",
    )
    hidden_alias(made, "--trust_scorers", "trust_scorers", action="store_true")
    add_device(made)
    return made
