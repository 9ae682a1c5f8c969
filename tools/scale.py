"""``efftasks scale`` by the path OpenMMLab users know; works from a source tree without installation."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from efftasks.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["scale", *sys.argv[1:]]))
