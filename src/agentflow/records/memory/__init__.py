"""What is remembered: written, found by its words, kept, shown to its owner, forgotten."""
