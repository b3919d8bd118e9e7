"""Words to one call each: a sweep planned, run and reported; what there is; weights, data and stores looked after.

A module a subject, each with an `app` of its own; its functions are the commands.
"""

from __future__ import annotations

import logging
import sys
from typing import Annotated, NoReturn

import typer

from lmmcl.cli import catalog_commands, data_commands, result_commands, store_commands, sweep_commands, weight_commands
from lmmcl.cli.interrupts import keep_interrupts
from lmmcl.errors import UserError, cut
from lmmcl.terminal import masking_handler, plain_streams, safe_console
from lmmcl.version import __version__

HELP = """Teach a large multimodal model new skills, one after another, and measure what it forgets.

Begin with `lmmcl run sweeps/quickstart.yaml`; `lmmcl COMMAND --help` explains each command.

Exit codes: 0 done, 1 a trial failed, 2 bad input (one message, finished work is kept), 130 interrupted.
"""

LONGEST_PATH = 1000

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=HELP)
for subject in (sweep_commands, result_commands, catalog_commands, weight_commands, store_commands, data_commands):
    app.add_typer(subject.app)


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lmmcl {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="show the version and exit")
    ] = False,
) -> None:
    """Options that stand before a command. What `--help` says of them all is HELP."""


def main() -> None:
    """Entry point: every bad input becomes one message and exit code 2."""
    plain_streams()
    keep_interrupts()
    logging.lastResort = masking_handler()  # for what no handler was set up for: all warnings of ours
    try:
        app(prog_name="lmmcl")
    except UserError as error:
        _refuse(str(error))
    except OSError as error:
        from lmmcl.ledger.store import KEPT, is_full

        if is_full(error):
            _refuse(
                f"{error.filename or 'the disk'}: no space left on device; free some, then run the same command. {KEPT}"
            )
        if error.filename is None:
            raise
        # A path that was named, and cannot be read or written.
        _refuse(f"{cut(str(error.filename), LONGEST_PATH)}: {error.strerror}")


def _refuse(message: str) -> NoReturn:
    safe_console(stderr=True).print(f"error: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(2)
