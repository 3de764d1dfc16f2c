"""Write docs/configuration.md: `python -m tools.config_reference`."""

import inspect
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

from data.settings.declared import declared
from job.settings.config import Config
from job.settings.keys import meanings, written_default, written_type

PAGE = Path(__file__).parents[1] / "docs/configuration.md"
HEAD = """\
# Configuration

Made by `python -m tools.config_reference` from the dataclasses beside the code that they govern; do
not edit.

A configuration is a YAML file of sections and keys, or several (`--config A --config B`, later ones
win), then what the command line overrides: `--train.learning_rate 1e-4`,
`--scaling.num_workers '[2, 8]' --train.micro_batches_per_step 8`. Files are UTF-8. An unknown key,
a key given twice, and a value that its key may not have are refused before anything starts, in one
line with the key, and with file and line if it stands in a file. A run's resolved configuration
lies in its folder and in each of its checkpoints.
Presets are in [job/presets](../job/presets).
"""


def page() -> str:
    """Return the page."""
    return HEAD + "".join(_section(Config, ""))


def _section(cls: type, key: str) -> Iterator[str]:
    """Yield the tables of a dataclass and of those in it, at a dotted key."""
    words = meanings(cls)
    hints = declared(cls)
    inner = [f for f in fields(cls) if is_dataclass(hints[f.name])]
    own = [f for f in fields(cls) if f not in inner]
    if key:
        summary = (inspect.getdoc(cls) or "").partition("\n")[0]
        yield f"\n## {key}\n\n{summary}\n"
    if own:
        yield "\n| key | type | default | |\n|---|---|---|---|\n"
    for f in own:
        cells = (
            f"`{f.name}`",
            _code(written_type(hints[f.name])),
            _code(written_default(f)),
            words[f.name],
        )
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
    for f in inner:
        yield from _section(hints[f.name], f"{key}.{f.name}".lstrip("."))


def _code(text: str) -> str:
    return f"`{text}`" if text else '`""`'


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
