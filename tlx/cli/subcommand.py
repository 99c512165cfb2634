"""What a subcommand is: a name, a line of help, its arguments, and the call that they lead to."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tlx.cli.argument_parser import Parser

__all__ = ["Subcommand"]


@dataclass(frozen=True)
class Subcommand:
    """`python -m tlx NAME …`; the module of each subcommand defines one, and `tlx.cli.subcommands` lists them.

    Attributes:
        name: as it is typed.
        summary: one line for --help, in lower case and without a full stop.
        options: adds the arguments to a parser.
        run: runs the subcommand with the parsed arguments and returns its exit code. It only reads the arguments and
            prints; what it calls is usable from Python without argparse.
    """

    name: str
    summary: str
    options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]

    def parser(self) -> Parser:
        """The parser of its arguments, with its --help."""
        parser = Parser(prog=f"tlx {self.name}", description=f"{self.summary[0].upper()}{self.summary[1:]}.")
        self.options(parser)
        return parser

    def value_of(self, option: str) -> str | None:
        """What is typed after one of its options, as FILE; empty for one without a value, None where it has none."""
        action = self.parser()._option_string_actions.get(option)
        if action is None:
            return None
        return "" if action.nargs == 0 else str(action.metavar or action.dest.upper())

    def main(self, arguments: Sequence[str]) -> int:
        """Parses the words after the name, runs the subcommand and returns its exit code.

        Raises:
            RequestError: an argument is unknown, missing, empty or wrong.
        """
        parser = self.parser()
        given = parser.parse_intermixed_args(arguments)
        parser.no_empty(given)
        return self.run(given)
