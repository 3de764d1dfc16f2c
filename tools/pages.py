"""The commands of the project's pages."""

import re
from pathlib import Path


def commands(page: Path) -> list[str]:
    """Lines of a page's fenced blocks, those of shells and those without a language; continued lines are one."""
    blocks = re.findall(
        r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    text = "\n".join(block for language, block in blocks if language in ("", "bash"))
    return [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]
