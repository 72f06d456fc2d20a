"""``python -m fbnetv3_zoo``: the command line, as ``torchrun -m fbnetv3_zoo train ...`` needs it."""

from .cli import main

if __name__ == "__main__":
    main()
