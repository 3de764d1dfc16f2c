"""What a job is given from this machine: the code, the presets, and the files that it names.

It is a list of what is allowed. Whatever else lies beside the code, such as recordings, weights,
archives and files of passwords, stays at home.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from data.settings.dotted_keys import flat
from job.settings.cli import refuse_credentials
from job.settings.yaml_file import read_yaml

PACKAGES = ("benchmarks", "data", "examples", "job", "tools", "trainable", "tuning")
# what the packages hold beside *.py; `.rayignore` says the same to `ray job submit`
FILES = (
    "requirements.lock",  # job.doctor compares with it
    "data/bert/common_english_words.txt",
    "data/templates/*.css",
    "data/templates/*.jinja",
    "data/templates/*.js",
    "data/text/LICENSE.cmudict",
    "data/text/NOTICE",
    "data/text/chinese/full_words.txt",
    "data/text/chinese/neutral_words.txt",
    "data/text/chinese/readings.txt",
    "data/text/english/gru.npz",
    "data/text/english/words.gz",
    "job/presets/*.yaml",
    "job/presets/demo_corpus/README.md",
    "job/presets/demo_corpus/esd.list",
    "job/presets/demo_corpus/wavs/*/00[0-8].flac",
    "job/presets/small_voice/G_2520.safetensors",
    "job/presets/small_voice/README.md",
    "job/presets/small_voice/config.json",
    "tuning/spaces/*.yaml",
)
READINGS = "data.text.readings"
NAMED = ("--config", "--space", f"--{READINGS}")  # options that name a file of settings
CARRIED = "named"  # folder of those that lie elsewhere


def staged(root: Path, arguments: Sequence[str], folder: Path) -> list[str]:
    """Copy what a job may have into a folder; return its arguments, as they are to be there.

    A file of settings that lies outside of the root is carried too, and its argument changed.

    Args:
        root: this project's folder.
        arguments: of the job's command; relative paths start from the working directory.
        folder: an empty one.

    Raises:
        ValueError: a configuration is not one, holds a password, or names a file of readings that
            the nodes would not find.
        OSError: a named file cannot be read.
    """
    words = [part for word in arguments for part in _split(word)]
    named = {i for i, word in enumerate(words) if i and words[i - 1] in NAMED}
    carried: dict[Path, str] = {}
    for i in sorted(named):
        if "://" in words[i] or (words[i - 1] == "--space" and not Path(words[i]).suffix):
            continue  # the nodes read it; a space of tuning/spaces is named without an ending
        path = _file(words[i - 1], words[i])
        if words[i - 1] == "--config":
            _check(words[i], read_yaml(words[i]))
        carried.setdefault(path, _place(root, path, len(carried)))
        words[i] = carried[path]
    for path in allowed(root):
        _copy(path, folder / path.relative_to(root))
    for path, place in carried.items():
        _copy(path, folder / place)
    return words


def allowed(root: Path) -> Iterator[Path]:
    """Yield the files of a project's folder that may be uploaded."""
    sources = (path for name in PACKAGES for path in (root / name).rglob("*.py"))
    others = (path for pattern in FILES for path in root.glob(pattern))
    for path in [*sources, *others]:
        if path.is_file() and not any(
            part.startswith(".") for part in path.relative_to(root).parts
        ):
            yield path


def _split(word: str) -> list[str]:
    """Return `--config=FILE`, and other options that name a file, as two words."""
    option, equals, value = word.partition("=")
    return [option, value] if equals and option in NAMED else [word]


def _file(option: str, name: str) -> Path:
    path = Path(name)
    if not path.is_file():
        raise ValueError(f"{option} {name}: there is no such file on this machine to upload")
    return path.resolve()


def _place(root: Path, path: Path, number: int) -> str:
    """Return where a named file lies in the upload."""
    if path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return f"{CARRIED}/{number}/{path.name}"


def _check(name: str, settings: Mapping[str, object]) -> None:
    """Refuse a configuration that would take a password along, or a path that nodes do not have."""
    for key, value in flat(dict(settings)).items():
        if isinstance(value, str):
            refuse_credentials(f"{name}: {key}", value)
        if key == READINGS and isinstance(value, str) and Path(value).is_file():
            raise ValueError(
                f"{name}: {key} {value} is a file of this machine, which nodes do not have: "
                f"give it as --{key} {value}, which uploads it"
            )


def _copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)
