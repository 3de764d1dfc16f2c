"""The commands of the project's pages."""

import re
from pathlib import Path


def commands(page: Path) -> list[str]:
    """Return the lines of a page's shell blocks; a line that is continued is one."""
    blocks = re.findall(
        r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    text = "\n".join(block for language, block in blocks if language in ("", "bash"))
    return [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]
