"""The shipped model: a tiny base and three adapters, for the demo and the tests."""

from pathlib import Path

FOLDER = Path(__file__).parent
BASE = FOLDER / "base"
VOICES = ("philosopher", "coder", "artist")
