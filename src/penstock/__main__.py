"""The one command: `penstock`, or `python -m penstock`."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line."""
    from penstock.cli.main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
