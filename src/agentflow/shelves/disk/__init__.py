"""Adapters that were fetched, on disk."""

from agentflow.shelves.disk.cache import DiskCache, Terms

__all__ = ["DiskCache", "Terms"]
