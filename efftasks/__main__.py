"""``python -m efftasks``: the same as the ``efftasks`` command."""

import sys

from efftasks.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
