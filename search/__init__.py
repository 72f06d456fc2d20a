"""Joint architecture-recipe search. Nothing here yet: it comes with the three-stage search."""
