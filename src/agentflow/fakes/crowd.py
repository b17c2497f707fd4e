"""Many valid adapters out of a few: each differs from its model in one bit, so each has a digest of its own."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from agentflow.adapters import CONFIG, WEIGHTS, digest, identity, read_header


def crowd(models: Mapping[str, Path], count: int, home: Path) -> dict[str, Path]:
    """`count` folders in `home`, in the voices of `models` in turn; names are `ROLENUMBER@digest`.

    The changed bit is the lowest of one weight's mantissa: nobody hears it.
    """
    made = {}
    for number in range(count):
        role, model = list(models.items())[number % len(models)]
        folder = home / f"{role}{number}"
        folder.mkdir(parents=True)
        shutil.copyfile(model / CONFIG, folder / CONFIG)
        _vary(model / WEIGHTS, folder / WEIGHTS, number // len(models))
        made[identity(f"{role}{number}", digest(folder))] = folder
    return made


def _vary(source: Path, target: Path, place: int) -> None:
    with source.open("rb") as file:
        header = read_header(file, source.stat().st_size)
        file.seek(0)
        content = bytearray(file.read())
    width = 4 if header.tensors[0].dtype == "F32" else 2
    content[header.data_start + place * width] ^= 1
    target.write_bytes(content)
