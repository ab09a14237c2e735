"""A page that shows what a lake holds and what is missing, with the query of each number."""
