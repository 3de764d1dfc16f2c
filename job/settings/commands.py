"""The commands: what each is for, how it is called, and its help, in brief and in full.

A command is a line of `COMMANDS`: `python -m job` lists it, and runs it as `python -m job NAME`.
"""

import argparse
import difflib
import re
import sys
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, NoReturn, get_args, get_origin

from data.settings.declared import declared
from job.settings.keys import meanings, written_default, written_type

PROGRAM = "python -m job"
ALL = "--help-all"
HELP = {"-h", "--help", ALL}
LEFT = 30  # columns of the options' names in a help
VALUE = "VALUE"
BREAK = r"[;:.] | \("  # behind which the words of a key go into details
LONGEST_CHOICE = 24  # characters of a value in the left column of a help


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        name: of `python -m job NAME`.
        purpose: what it does, in a few words.
        examples: arguments -> what they do.
        options: the handful of options that most people use; none: all.
        package: where its module lies, which may be run as well.
        is_configured: whether its options are the configuration's keys alone.
        options_in: the module that declares its options and imports neither torch nor Ray; empty:
            its own.
    """

    name: str
    purpose: str
    examples: tuple[tuple[str, str], ...] = ()
    options: tuple[str, ...] = ()
    package: str = "job"
    is_configured: bool = False
    options_in: str = ""

    @property
    def module(self) -> str:
        """Module of the command."""
        return f"{self.package}.{self.name}"


COMMANDS = (
    Command(
        "doctor",
        "find out whether a machine or cluster is fit for a run",
        (
            ("--config my.yaml", "looks at GPUs, disk, models, transcript and settings"),
            ("--config my.yaml --scaling.num_workers 4", "... for a run of four workers"),
            ("--config job/presets/demo.yaml", "the bundled demo, which needs nothing else"),
        ),
        ("--config", "run.storage", "data.transcript", "data.shards", "scaling.num_workers"),
        is_configured=True,
    ),
    Command(
        "transcribe",
        "turn recordings into a transcript, or check one",
        (
            ("--recordings recordings --out transcribed", "cuts long ones, by speech"),
            (
                "--recordings s3://b/raw --out s3://b/cut --data.asr.language JP",
                "all in Japanese, in an object store",
            ),
            ("--check my.list --out checked", "are the lines what is heard?"),
        ),
        (
            "--recordings",
            "--check",
            "--out",
            "--config",
            "data.asr.model",
            "data.asr.command",
            "data.asr.language",
            "data.asr.speaker",
            "data.asr.min_confidence",
        ),
        options_in="job.options.transcribe",
    ),
    Command(
        "prepare",
        "turn recordings and a transcript into shards",
        (
            ("--config job/presets/demo.yaml", "the bundled corpus"),
            ("--config my.yaml", "your own; again after a change: computes what changed"),
            (
                "--config my.yaml --data.max_reject_share 0.2",
                "goes on if up to a fifth of the lines cannot be used",
            ),
        ),
        (
            "--config",
            "data.transcript",
            "data.audio_root",
            "data.shards",
            "data.max_reject_share",
            "data.validation_per_speaker",
        ),
        is_configured=True,
    ),
    Command(
        "train",
        "train a voice, or continue",
        (
            ("--config job/presets/demo.yaml", "the bundled demo, some minutes on two CPUs"),
            ("--config my.yaml", "your own; after any stop the same command continues"),
            ("--config my.yaml --run.name second --train.learning_rate 1e-4", "one key otherwise"),
            (
                "--config job/presets/cluster.yaml --config my.yaml",
                "an elastic run on a cluster; of two files, the later one wins",
            ),
            ("--config runs/mine/config.yaml --train.max_steps 200000", "a finished run goes on"),
        ),
        (
            "--config",
            "run.name",
            "run.storage",
            "scaling.num_workers",
            "data.shards",
            "train.init_from",
            "train.max_steps",
            "train.learning_rate",
            "train.precision",
        ),
        is_configured=True,
    ),
    Command(
        "runs",
        "list runs with step, best score and state",
        (
            ("runs", "those of a folder"),
            ("s3://bucket/runs", "those of an object store"),
            ("runs --html runs/index.html", "as a page too, with their curves"),
        ),
    ),
    Command(
        "synthesize",
        "speak texts with a trained voice",
        (
            (
                '--checkpoint runs/mine/best --speaker anna --language EN --text "Hello." '
                "--out hello.wav",
                "a sentence",
            ),
            (
                "--checkpoint runs/mine --lines lines.txt --speaker anna --language EN --out said",
                "each line of a file",
            ),
            (
                "--checkpoint runs/mine --text - --stream --speaker anna --language EN --out - "
                "< story.txt",
                "a long text, to whoever listens at the other end of a pipe",
            ),
        ),
        (
            "--checkpoint",
            "--text",
            "--lines",
            "--language",
            "--speaker",
            "--out",
            "--length-scale",
            "--seed",
        ),
        options_in="job.options.synthesize",
    ),
    Command(
        "listen",
        "type a text and hear it, in a browser",
        (
            ("runs/mine", "the newest or the best checkpoint, also while it trains"),
            ("runs/mine --port 0", "on any port that is free"),
        ),
        options_in="job.options.listen",
    ),
    Command(
        "evaluate",
        "score a checkpoint, with a page to listen to",
        (
            ("--checkpoint runs/mine/best", "the held-back utterances"),
            ("--checkpoint runs/mine --split train --utterances 20", "some it has trained on"),
        ),
        options_in="job.options.evaluate",
    ),
    Command(
        "export",
        "write a checkpoint for other tools",
        (
            ("--checkpoint runs/mine/best --out exported", "the reference's .pth files"),
            ("--checkpoint runs/mine/best --out onnx --format onnx --networks g", "for ONNX"),
        ),
        options_in="job.options.export",
    ),
    Command(
        "sweep",
        "search for better settings: many trials, compared",
        (
            ("--config job/presets/demo.yaml --space loss_weights --trials 4", "a small one"),
            ("--config my.yaml --space my_space.yaml --search optuna", "keys of your own, by TPE"),
            ("--config my.yaml --space reconstruction --schedule pbt --trials 8", "a population"),
        ),
        (
            "--config",
            "--space",
            "--metric",
            "--search",
            "--schedule",
            "--trials",
            "--at-once",
            "run.name",
        ),
        package="tuning",
        options_in="tuning.options",
    ),
    Command(
        "convert_config",
        "convert the reference trainer's config.json",
        (("config.json --out my.yaml", "the configuration of the same training"),),
        options_in="job.options.convert_config",
    ),
    Command(
        "submit",
        "run one of these commands on a cluster",
        (
            ("-- job.train --config my.yaml", "and show its output"),
            ("--no-wait -- job.train --config my.yaml", "and let it run"),
            ("--env HF_TOKEN -- job.prepare --config my.yaml", "with a variable of here"),
        ),
        options_in="job.options.submit",
    ),
    Command(
        "spot",
        "turn a cloud's notice into a drain, on each node of a cluster",
        (("", "until the machine goes"), ("--now", "drain this node and wait until it is idle")),
    ),
)


def command_of(module: str) -> Command | None:
    """Return the command of a module, such as `job.train`; None if it is none."""
    return next((each for each in COMMANDS if each.module == module), None)


def find(name: str) -> Command:
    """Return the command of a name.

    Raises:
        ValueError: there is none; tells which may be meant.
    """
    known = {each.name: each for each in COMMANDS}
    if name in known:
        return known[name]
    last = name.rpartition(".")[2].replace("-", "_")
    begin_so = [each for each in known if last and each.startswith(last)]
    is_option = name.startswith("-")
    near = begin_so or ([] if is_option else difflib.get_close_matches(last, known, 3, 0.6))
    meant = f"did you mean {' or '.join(near)}?" if near else f"{PROGRAM} lists all"
    raise ValueError(f"there is no command {name!r}: {meant}")


def overview() -> str:
    """Return what `python -m job` prints."""
    width = max(len(each.name) for each in COMMANDS)
    lines = [f"  {each.name:{width}}  {each.purpose}" for each in COMMANDS]
    return "\n".join(
        [
            f"usage: {PROGRAM} COMMAND ...",
            "",
            "Train voices with Bert-VITS2 2.3, on a laptop or an elastic cluster.",
            "",
            "commands:",
            *lines,
            "",
            f"`{PROGRAM} COMMAND --help` has examples. docs/quickstart.md leads from",
            "recordings to a voice. Modules work too: `python -m job.train`.",
            "",
        ]
    )


LOADING = "\r\x1b[K"  # to the line's beginning, and nothing in it


def loading() -> None:
    """Tell on a terminal that a command is being loaded, which may take seconds."""
    if sys.stderr.isatty():
        print("loading torch and Ray ...", end="", file=sys.stderr, flush=True)


def loaded() -> None:
    """Take back what `loading` told."""
    if sys.stderr.isatty():
        print(LOADING, end="", file=sys.stderr, flush=True)


class Helpful(argparse.ArgumentParser):
    """A parser whose --help is a screenful with examples first; --help-all has every option.

    The usage names the program as it was called: `python -m job train` or `python -m job.train`.
    """

    def add_help_all(self) -> None:
        """Add --help-all; called by whoever makes the parser."""
        self.command = command_of(self.prog.removeprefix("python -m "))
        self.briefs: dict[str, str] = {}  # key -> the beginning of its words
        if self.command is not None and sys.argv[0] == f"{PROGRAM} {self.command.name}":
            self.prog = sys.argv[0]
        self.add_argument(ALL, action=ShowAll)

    @property
    def shown(self) -> list[argparse.Action]:
        """All options but those that are hidden."""
        return [each for each in self._actions if each.help != argparse.SUPPRESS]

    def format_help(self, *_: Any) -> str:
        """Return the help in brief."""
        if self.command is None or not self.command.options:
            return self.help_of_all()
        made = Form(self.prog, max_help_position=LEFT)
        made.start_section("options that most people use")
        by_name = {name: each for each in self.shown for name in each.option_strings}
        for name in self.command.options:
            option = copy(by_name[name if name.startswith("-") else f"--{name}"])
            option.help = self.briefs.get(option.dest, option.help)
            made.add_argument(option)
        made.end_section()
        hidden = len(self.shown) - len(self.command.options)
        made.add_text(f"{ALL} shows {hidden} more, each with all its words.")
        return self._beginning() + made.format_help()

    def help_of_all(self) -> str:
        """Return the help with every option."""
        sections: dict[str, list[argparse.Action]] = {}
        for each in self.shown:
            section = each.dest.rpartition(".")[0] if is_key(each) else "options"
            sections.setdefault(section, []).append(each)

        made = Form(self.prog, max_help_position=LEFT)
        for section, options in sections.items():
            made.start_section(section)
            made.add_arguments(options)
            made.end_section()
        return self._beginning() + made.format_help()

    def _beginning(self) -> str:
        """Return what any help begins with: usage, description and examples."""
        made = Form(self.prog)
        made.add_text(self.description)
        return "\n".join([self._usage(), made.format_help(), *self._examples()])

    def _usage(self) -> str:
        """Return how the command is called: with what it cannot do without."""
        if self.command is not None and self.command.is_configured:
            return f"usage: {self.prog} --config FILE [--section.key VALUE ...]\n"
        named = getattr(self, "required_args", ())  # jsonargparse's
        required = {each for each in self._actions if each.required or each.dest in named}
        for group in self._mutually_exclusive_groups:
            required |= set(group._group_actions) if group.required else set()
        made = Form(self.prog)
        needed = [each for each in self._actions if each in required]
        made.add_usage(None, needed, self._mutually_exclusive_groups)
        return f"{made.format_help().rstrip()} [--option VALUE ...]\n"

    def _examples(self) -> Iterator[str]:
        if self.command is None or not self.command.examples:
            return
        yield "examples:"
        for arguments, meaning in self.command.examples:
            yield f"  {self.prog} {arguments}".rstrip()
            yield f"      {meaning}"
        yield "\n"


class Form(argparse.HelpFormatter):
    """Shows of each option the name that documents use."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{action.option_strings[0]} {value}"

    def _get_help_string(self, action: argparse.Action) -> str:
        """Return an option's words, with its default unless they tell it."""
        told = action.help or ""
        plain = isinstance(action.default, str | int | float) and action.default is not False
        if not plain or action.default == argparse.SUPPRESS or "default" in told:
            return told
        return f"{told} (default: %(default)s)".lstrip()


def is_key(option: argparse.Action) -> bool:
    """Tell whether an option is a key of the configuration."""
    return "." in option.dest


class ShowAll(argparse.Action):
    """Prints the help with every option, and ends the command."""

    def __init__(self, option_strings: Sequence[str], dest: str, **_: Any) -> None:
        super().__init__(
            option_strings,
            argparse.SUPPRESS,
            nargs=0,
            default=argparse.SUPPRESS,
            help="show every option",
        )

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        """Print the help."""
        assert isinstance(parser, Helpful)
        print(parser.help_of_all(), end="")
        parser.exit()


def explain(made: Helpful, cls: type, prefix: str = "") -> None:
    """Give the options of a dataclass's fields the words that its docstring has for them.

    Args:
        made: parser that has the options.
        cls: the dataclass.
        prefix: what stands before the fields' names in the options' names.
    """
    words = meanings(cls)
    hints = declared(cls)
    options = {each.dest: each for each in made._actions}
    for each in fields(cls):
        name = prefix + each.name
        if is_dataclass(inner := hints[each.name]):
            # a section is given key by key
            options[name].help = argparse.SUPPRESS
            explain(made, inner, f"{name}.")  # type: ignore[arg-type]
            continue
        option = options[name]
        option.metavar = _metavar(hints[each.name])
        told = f"{words[each.name].rstrip('.')}"
        kind = "" if option.metavar != VALUE else f" [{written_type(hints[each.name])}]"
        default = f" (default: {written_default(each) or 'none'})"
        option.help = f"{told}{kind}{default}".replace("%", "%%")
        made.briefs[name] = f"{re.split(BREAK, told)[0]}{default}".replace("%", "%%")


def _metavar(hint: Any) -> str:
    """Return what stands in place of a value: the choices, if they are few."""
    if hint is bool:
        return "true|false"
    choices = "|".join(map(str, get_args(hint))) if get_origin(hint) is Literal else ""
    return choices if 0 < len(choices) <= LONGEST_CHOICE else VALUE
