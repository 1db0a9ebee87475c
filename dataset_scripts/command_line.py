"""What all programs of the project share: how options are spelt, and how a program ends."""

import argparse
import functools
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, Never

from dataset_scripts.schema import UserError


class Parser(argparse.ArgumentParser):
    """Takes `--batch_size` and `--batch-size` alike; shows a text as it is written; a fault is a UserError."""

    def __init__(self, description: str | None, prog: str | None = None) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(prog, description=description, formatter_class=formatter, allow_abbrev=False)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        known = {name.replace("_", "-"): name for name in self._option_string_actions}
        words = []
        for word in sys.argv[1:] if args is None else args:
            name, *value = word.split("=", 1)
            words.append("=".join([known.get(name.replace("_", "-"), name), *value]))
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> Never:
        raise UserError(f"{message}; {' '.join(self.format_usage().split())}")


def program(main: Callable[[Sequence[str] | None], int | None]) -> Callable[..., int]:
    """`main` of a program: what its user can mend ends in a sentence and 2, Ctrl-C in 130."""

    @functools.wraps(main)
    def ending(argv: Sequence[str] | None = None) -> int:
        try:
            return main(argv) or 0
        except UserError as error:
            print(f"error: {_said(error)}", file=sys.stderr)
        except OSError as error:  # the system refuses a file: a place that cannot be written, a disk that is full
            said = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else _said(error)
            print(f"error: {said}", file=sys.stderr)
        except KeyboardInterrupt:
            print("interrupted; the same command goes on where it was, or starts anew", file=sys.stderr)
            return 130
        return 2

    return ending


def _said(error: Exception) -> str:
    """The sentence alone, also where torch's loader put a traceback before what one of its workers met."""
    words = re.match(r"Caught \w+ in .*\nOriginal Traceback .*\n[\w.]+: ([^\n]*)\s*$", str(error), re.DOTALL)
    return words[1] if words else str(error)


def run_example(main: Callable[..., None], usage: str | None) -> int:
    """`main` on the words of the command line; a wrong number of them, or a wrong word, ends in a sentence and 2."""
    words = sys.argv[1:]
    try:
        inspect.signature(main).bind(*words)
    except TypeError as error:
        print(f"error: {error}\n\n{usage}", file=sys.stderr)
        return 2

    @program
    def example(_: Sequence[str] | None) -> None:
        try:
            main(*words)
        except ValueError as error:
            raise UserError(str(error)) from None
        except KeyError as error:
            raise UserError(f"there is no {error}") from None

    return example()
