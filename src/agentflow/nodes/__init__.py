"""The steps of a turn: one file, one function each."""
