"""What there is: every table, column and view of a lake."""
