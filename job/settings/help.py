"""The help of a command, in brief and in full."""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import fields, is_dataclass
from typing import Any, Literal, NoReturn, get_args, get_origin

from data.settings.declared import declared
from job.settings.commands import ALL, PROGRAM, command_of
from job.settings.keys import meanings, written_default, written_type

LEFT = 30  # columns of the options' names in a help
VALUE = "VALUE"
BREAK = r"[;:.] | \("  # behind which the words of a key go into details
LONGEST_CHOICE = 24  # characters of a value in the left column of a help


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
