"""`python -m nncc`."""

import sys

from .compiler.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
