"""The commands: what each is for, and how it is called.

A command is a line of `COMMANDS`: `python -m job` lists it, and runs it as `python -m job NAME`.
"""

import difflib
import sys
from dataclasses import dataclass

PROGRAM = "python -m job"
ALL = "--help-all"
HELP = {"-h", "--help", ALL}


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
        main_in: the module with its `main`, where its own is a package; empty: its own.
    """

    name: str
    purpose: str
    examples: tuple[tuple[str, str], ...] = ()
    options: tuple[str, ...] = ()
    package: str = "job"
    is_configured: bool = False
    options_in: str = ""
    main_in: str = ""

    @property
    def module(self) -> str:
        """What `python -m` runs."""
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
        main_in="job.submit.command",
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
