"""`python -m lmmcl` is `lmmcl`."""

from lmmcl.cli import main

main()
