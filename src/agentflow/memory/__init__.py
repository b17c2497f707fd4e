"""Homes of memories: where the vectors of a collection live and are searched."""
