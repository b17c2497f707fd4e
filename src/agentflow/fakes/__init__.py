"""Doubles of the world outside, shipped: for tests, laptops and `agentflow serve --fake`."""
