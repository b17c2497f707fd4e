"""Finding texts again: words, BM25, fusion. Pure: numbers and strings in, numbers and strings out."""
