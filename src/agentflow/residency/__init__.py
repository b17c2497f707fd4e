"""Residency: which adapters are in the engine, who may leave, who comes next."""
