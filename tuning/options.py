"""How a space is searched, and the options of tuning.sweep."""

from dataclasses import dataclass
from typing import Literal

from job.settings.cli import ConfigParser, hidden_alias, parser
from job.settings.help import explain
from tuning.space import names

# option -> the smallest number that makes sense
LOWEST = {"trials": 1, "grace": 1, "reduction": 2, "interval": 1}


@dataclass(frozen=True)
class SearchOptions:
    """How a space is searched.

    Attributes:
        search: where values come from: `random`, `grid` (every combination), or `optuna` (TPE).
        schedule: which trials continue: with `none` all of them; `asha` stops the worse ones early;
            `hyperband` too, but some of them later than others, for those that begin badly and end
            well; `pbt` trains a population whose worse members take over the weights and values of
            the better ones.
        trials: how many; a grid has as many as combinations.
        grace: validations before a trial may be stopped (asha, hyperband).
        reduction: one trial in so many continues at each decision (asha, hyperband).
        interval: validations between the population's decisions (pbt).
        seed: seed of the search.

    Raises:
        ValueError: an impossible number or combination; names the option.
    """

    search: Literal["random", "grid", "optuna"] = "random"
    schedule: Literal["none", "asha", "hyperband", "pbt"] = "asha"
    trials: int = 16
    grace: int = 1
    reduction: int = 2
    interval: int = 1
    seed: int = 42

    def __post_init__(self) -> None:
        for key, low in LOWEST.items():
            if getattr(self, key) < low:
                raise ValueError(f"--{key} is {getattr(self, key)}: give a number from {low}")
        if self.population and self.search == "optuna":
            raise ValueError(
                "--search optuna cannot be combined with --schedule pbt, which changes the values "
                "itself"
            )
        if self.population and self.trials < 2:
            raise ValueError("--schedule pbt needs a population: give --trials 2 or more")

    @property
    def population(self) -> bool:
        """Whether values change while the trials train."""
        return self.schedule == "pbt"


def command_line() -> ConfigParser:
    """Return the parser of the command's options."""
    made = parser(
        "python -m tuning.sweep",
        "Search over the configuration: trains many trials and compares them.",
    )
    made.add_class_arguments(SearchOptions)
    explain(made, SearchOptions)
    made.add_argument(
        "--space", required=True, help=f"what is searched: {', '.join(names())}, or a YAML file"
    )
    made.add_argument(
        "--metric", default="eval/mcd", help="of a validation, minimised: eval/mel, eval/mcd, ..."
    )
    made.add_argument(
        "--at-once", type=int, help="trials at once; default: as many as the cluster has room for"
    )
    hidden_alias(made, "--at_once", "at_once", type=int)
    return made
