"""`python -m rumus.train` is the command line `rumus`."""

import sys

from rumus.train.command_line.main import main

if __name__ == "__main__":
    sys.exit(main())
