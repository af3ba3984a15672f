"""python -m hoop: see hoop.command."""

import sys

from hoop.command.main import main

if __name__ == "__main__":
    sys.exit(main())
