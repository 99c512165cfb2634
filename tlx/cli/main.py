"""The command line: `python -m tlx key=value …` runs, `python -m tlx SUBCOMMAND …` does the rest.

Results go to stdout, progress and errors to stderr. Exit codes: 0 all well, 1 a run failed, 2 the request was wrong,
130 interrupted.
"""

import atexit
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence

from tlx.cli.subcommands import subcommand
from tlx.cli.train import run_or_show
from tlx.config import tracking_uri
from tlx.core import output_streams, stopwatch
from tlx.core.atomic_files import FULL
from tlx.core.deferred_compiler import compiler_deferred
from tlx.core.device import import_from_here
from tlx.core.errors import RequestError, said, shown
from tlx.core.interruption import ENDING
from tlx.reporting import screen

COMPLETION = {"-sc", "--shell-completion"}  # a shell asks while its user types
TEXTS = {"-h", "--help", "-c", "--cfg", "-i", "--info"}  # what a pager may show: the screen is its own then


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code."""
    output_streams.use()
    arguments = tracking_uri.typed(sys.argv[1:] if argv is None else argv)
    silent = COMPLETION if sys.stdout.isatty() else COMPLETION | TEXTS
    with screen.of_whole_lines() if silent & set(arguments) else screen.live():
        return _answered(arguments, argv)


def _answered(arguments: list[str], argv: Sequence[str] | None) -> int:
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, signal.default_int_handler)
    began = time.perf_counter() - (stopwatch.process_age() if argv is None else 0.0)
    try:
        if argv is None:
            import_from_here()
        with stopwatch.command(began), compiler_deferred():
            first = arguments[0] if arguments else "-"
            # An option or an override is no subcommand.
            if not first.startswith("-") and "=" not in first and (chosen := subcommand(first)):
                return chosen.main(arguments[1:])
            return run_or_show(arguments)
    except RequestError as error:
        return _say(error, 2)
    except KeyboardInterrupt as error:
        print(f"tlx: interrupted{f': {error}' if str(error) else ''}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _say(error, 2 if error.errno in FULL else 1)
    except Exception as error:  # the last resort: one line, and how to see more
        return _say(error, 1)
    finally:
        if argv is None:
            # All is written. An interruption while libraries clean up ends the process, without their tracebacks; what
            # is registered last runs first.
            for number in (signal.SIGINT, signal.SIGTERM):
                atexit.register(signal.signal, number, signal.SIG_DFL)


def _say(error: BaseException, code: int) -> int:
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        traceback.print_exception(error)
    print(f"tlx: {shown(said(error))}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
