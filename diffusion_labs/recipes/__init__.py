"""Recipes: typed functions that return everything a run needs; the command line is made from them."""
