"""Options of job.transcribe."""

from jsonargparse import ArgumentParser

from job.settings.cli import parser


def command_line() -> ArgumentParser:
    """Return the parser of the command's options."""
    made = parser("python -m job.transcribe", "Make a transcript of recordings, or check one.")
    made.add_argument("--recordings", help="a folder or URI of recordings, long ones too; or one")
    made.add_argument("--check", help="a transcript whose lines are compared with what is heard")
    made.add_argument("--out", help="a folder or URI that is written; the same one goes on")
    return made
