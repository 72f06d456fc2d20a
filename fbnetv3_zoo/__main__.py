"""The program ``fbnetv3``; also ``python -m fbnetv3_zoo``, as ``torchrun -m fbnetv3_zoo train ...`` needs it."""

import os
import sys


def main() -> None:
    """Run the command line, whose modules take a moment to be imported: Ctrl-C ends that in one line, too."""
    try:
        from .cli import main as run

        run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        os._exit(130)


if __name__ == "__main__":
    main()
