"""``python -m fbnetv3_zoo``: the command line, for ``torchrun -m fbnetv3_zoo train ...`` and where scripts have no path."""

from fbnetv3_zoo.cli import main

if __name__ == "__main__":
    main()
