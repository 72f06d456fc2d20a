"""The stages of the search: acquisition, iterative optimization, evolution."""
