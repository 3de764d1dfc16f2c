"""Damaged rows of the shards: their replacements are logged, errors end the run on all ranks."""

import logging
from collections.abc import Sequence

from data.stream.collectives import CollectiveAgreement, alone

log = logging.getLogger("bert_vits2_ray")


class BadRowsError(ValueError):
    """Rows of the shards cannot be used."""


class Damage:
    """What this rank has met of damaged rows."""

    def __init__(self, agree: CollectiveAgreement = alone):
        """Begin without damage.

        Args:
            agree: makes one rank's error known to all.
        """
        self.agree = agree
        self.error = ""
        self.logged = set[str]()

    def note(self, error: str, replaced: Sequence[str]) -> None:
        """Note what was wrong with a micro-batch, and log each replacement once.

        Args:
            error: why the run cannot continue with it, or "".
            replaced: one line per row that was replaced.
        """
        self.error = self.error or error
        for line in replaced:
            if line not in self.logged:
                log.warning("%s", line)
        self.logged.update(replaced)

    def raise_on_all_ranks(self) -> None:
        """Stop if any rank has met rows that it cannot do without. A collective call.

        Raises:
            BadRowsError: the first rank's error, on all ranks.
        """
        error = self.agree(self.error)
        if error:
            raise BadRowsError(error)
