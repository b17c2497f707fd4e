"""Vectors in FAISS, in this process: in RAM, or in files that are mapped into memory."""

from agentflow.memory.faiss.home import FaissHome

__all__ = ["FaissHome"]
