"""`lmmcl`, and `python -m lmmcl`: the command line, and what it says where it is interrupted before it has begun."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Entry point. Imports take a part of a second, in which Ctrl-C would show a traceback of Python's own."""
    try:
        from lmmcl.cli import main as command
    except KeyboardInterrupt:
        print("interrupted; nothing was begun", file=sys.stderr)
        sys.exit(130)
    try:
        command()
    finally:
        gc.freeze()  # Python's end would go through all that is there for circles, and free it: seconds after a run on Ray


if __name__ == "__main__":
    main()
