"""The command line. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import io
import re
import shlex
import sys
import traceback
from contextlib import nullcontext

from cyclopts import App, CycloptsError

from historyad import __version__
from historyad.cli.common import OUR_ERROR, USER_ERROR
from historyad.cli.console import quietly, say
from historyad.cli.demo import demo
from historyad.cli.fitting import calibrate, fit
from historyad.cli.judging import evaluate, inspect, probe, report
from historyad.cli.research import benchmark, list_names, reproduce
from historyad.cli.scoring import score
from historyad.cli.serving import drift, export, serve
from historyad.config import settings
from historyad.errors import HistoryADError
from historyad.names import shown

__all__ = ["app", "main"]

QUIET = "--quiet"

app = App(
    name="historyad",
    version=__version__,
    version_flags=["--version", "-V"],
    help=(
        "Find anomalies when only normal examples exist.\n\n"
        "A SOURCE is a folder of images, of recordings (.wav) or tar shards, a .npy or .npz file "
        "(file.npz:key), a table of numbers (.csv, .tsv, .txt, also .gz, .parquet, .feather), or a "
        "named data set NAME[:SPLIT[:LABELS]] such as digits:train, mnist:train:!3 (all but the "
        "threes) or kmnist:test. Start with: historyad demo\n\n"
        "With --quiet, every command shows results and errors alone: no progress and no notes."
    ),
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # `main` says how to go on
)

# In the order of the reference, each with an example for its help.
_COMMANDS = (
    (fit, "fit good --out runs/parts"),
    (score, "score runs/parts inbox --out scores.csv"),
    (calibrate, "calibrate runs/parts inspected"),
    (drift, "drift runs/parts stream"),
    (evaluate, "evaluate runs/parts --normal fresh --anomalous broken"),
    (inspect, "inspect runs/parts"),
    (probe, "probe runs/parts fresh --out probe"),
    (export, "export runs/parts parts.onnx"),
    (serve, "serve runs/parts --port 8000"),
    (report, "report runs/parts --source good --normal fresh"),
    (benchmark, "benchmark --split digits-without-0 --method vae --out rows"),
    (reproduce, "reproduce toy --out toy"),
    (list_names, "list presets"),
    (demo, "demo"),
)
_EXAMPLES = {example.split()[0]: f"historyad {example}" for _, example in _COMMANDS}
for _command, _example in _COMMANDS:
    _name = _example.split()[0]
    app.command(_command, name=_name, help_epilogue=f"Example: {_EXAMPLES[_name]}")
app.register_install_completion_command(
    help="Let bash, zsh or fish complete commands, options and choices."
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 2 for a user's mistake, 1 for ours.

    ``--quiet`` may stand anywhere among its words.
    """
    given = sys.argv[1:] if arguments is None else arguments
    words = [word for word in given if word != QUIET]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that knows no umlauts shows escapes
            stream.reconfigure(errors="backslashreplace")
    try:
        with quietly() if QUIET in given else nullcontext():
            status = app(
                words, exit_on_error=False, print_error=False, result_action="return_value"
            )
    except HistoryADError as error:
        say(f"historyad: {_in_flags(str(error))}", file=sys.stderr)
        return USER_ERROR
    except CycloptsError as error:  # of several lines, as of a list of commands
        print(f"historyad: {shown(_in_flags(str(error)), keep=chr(10))}", file=sys.stderr)
        say(_to_type(words, str(error)), file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
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


def _to_type(words: list[str], message: str) -> str:
    """Return the line to type instead of a command that was not understood.

    With the word that was meant, where that is known, and else an example of the command.
    """
    meant = re.search(r'Did you mean "?([\w-]+)"?(?: instead of "?([\w-]+))?', message)
    wrong = re.search(r'"([\w-]+)|(--[\w-]+)', message)
    typed = meant and (meant[2] or (wrong and (wrong[1] or wrong[2])))
    if meant and typed in words:
        mended = [meant[1] if word == typed else word for word in words]
        return f"Type: {shlex.join(['historyad', *mended])}"
    example = _EXAMPLES.get(words[0] if words else "", "historyad --help")
    return f"For example: {example}"


def _in_flags(message: str) -> str:
    """Write the settings that a message names the way the command line spells them."""
    names = "|".join(name for name in settings() if "_" in name)
    # Whole words that are not part of a path.
    pattern = rf"(?<![\w/.-])(?:{names})(?![\w/-]|\.\w)"
    return re.sub(pattern, lambda match: "--" + match[0].replace("_", "-"), message)
