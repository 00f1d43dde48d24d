"""The command line. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import io
import re
import sys
import traceback

from cyclopts import App, CycloptsError

from historyad import __version__
from historyad.cli.common import OUR_ERROR, USER_ERROR
from historyad.cli.console import say
from historyad.cli.demo import demo
from historyad.cli.fitting import calibrate, fit
from historyad.cli.judging import evaluate, inspect, probe, report
from historyad.cli.research import benchmark, reproduce
from historyad.cli.scoring import drift, export, score, serve
from historyad.config import settings
from historyad.errors import HistoryADError
from historyad.names import shown

__all__ = ["app", "main"]

app = App(
    name="historyad",
    version=__version__,
    help=(
        "Find anomalies when only normal examples exist.\n\n"
        "A SOURCE is a folder of images, of recordings (.wav) or tar shards, a .npy or .npz file "
        "(file.npz:key), a table of numbers (.csv, .tsv, .txt, also .gz, .parquet, .feather), or a "
        "named data set NAME[:SPLIT[:LABELS]] such as digits:train, mnist:train:!3 (all but the "
        "threes) or kmnist:test. Start with: historyad demo"
    ),
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # `main` says how to go on
)

# In the order of the reference.
for _command in (
    *(fit, score, calibrate, drift),
    *(evaluate, inspect, probe, export, serve, report),
    *(benchmark, reproduce, demo),
):
    app.command(_command)


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 2 for a user's mistake, 1 for ours."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that knows no umlauts shows escapes
            stream.reconfigure(errors="backslashreplace")
    try:
        status = app(
            arguments, exit_on_error=False, print_error=False, result_action="return_value"
        )
    except HistoryADError as error:
        say(f"historyad: {_in_flags(str(error))}", file=sys.stderr)
        return USER_ERROR
    except CycloptsError as error:  # of several lines, as of a list of commands
        print(f"historyad: {shown(_in_flags(str(error)), keep=chr(10))}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        words = sys.argv[1:] if arguments is None else arguments
        hint = "; the same command continues" if _continues(words) else ""
        say(f"historyad: interrupted{hint}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as after `| head`
        sys.stderr.close()
        return 0
    except Exception:
        print(shown(traceback.format_exc(), keep="\n"), end="", file=sys.stderr)
        say(f"historyad {__version__}: this is our mistake, please report it", file=sys.stderr)
        return OUR_ERROR
    return status if isinstance(status, int) else 0


def _continues(words: list[str]) -> bool:
    """Whether the command, given again, finds what it has done: a fit, rows, parts of scores."""
    command, *options = words or [""]
    in_parts = any(option.startswith(("--shard", "--engine")) for option in options)
    return command in ("fit", "benchmark", "reproduce") or (command == "score" and in_parts)


def _in_flags(message: str) -> str:
    """Write the settings that a message names the way the command line spells them."""
    names = "|".join(name for name in settings() if "_" in name)
    # Whole words that are not part of a path.
    pattern = rf"(?<![\w/.-])(?:{names})(?![\w/-]|\.\w)"
    return re.sub(pattern, lambda match: "--" + match[0].replace("_", "-"), message)
