"""Networks as modules: blocks, the network built from an Arch, and ``create``."""
