"""The file is changed at one place, or not at all."""

import pytest
import yaml

from agentflow.errors import ConfigError
from agentflow.settings.edit import with_collection, write

BLOCK = {"backend": "faiss", "location": "RAM"}
WRITTEN = "{backend: faiss, location: RAM}"
BEFORE = "# ours\nmodel: {base: tiny}   # shipped\n\n"
AFTER = "\n# where it listens\nserver: {port: 1}\n"


@pytest.mark.parametrize(
    ("written", "changed"),
    [
        (
            "collections:\n  notes: {backend: postgres}  # mine\n  rest: {}\n",
            f"collections:\n  notes: {WRITTEN}  # mine\n  rest: {{}}\n",
        ),
        (
            "collections:\n  notes:\n    backend: qdrant\n    location: SSD\n  # others\n  rest: {}\n",
            f"collections:\n  notes:\n    {WRITTEN}\n  # others\n  rest: {{}}\n",
        ),
        ("collections: {notes: {}, rest: {}}\n", f"collections: {{notes: {WRITTEN}, rest: {{}}}}\n"),
        ("collections:\n  rest: {}\n", f"collections:\n  notes: {WRITTEN}\n  rest: {{}}\n"),
    ],
    ids=["on one line", "as a block", "within a line", "not there yet"],
)
def test_only_the_collection_changes(written: str, changed: str) -> None:
    assert with_collection(BEFORE + written + AFTER, "notes", BLOCK) == BEFORE + changed + AFTER


def test_a_file_without_collections_gets_them() -> None:
    changed = with_collection(BEFORE, "conversations", BLOCK)
    assert changed.startswith(BEFORE.rstrip())
    assert yaml.safe_load(changed)["collections"] == {"conversations": BLOCK}


@pytest.mark.parametrize(
    "written",
    [
        "collections:\n  notes:\n    backend: qdrant  # because\n    location: SSD\n",
        "collections: {rest: {}}\n",
        "same: &same {backend: qdrant}\ncollections:\n  notes: *same\n",
    ],
    ids=["a comment would be lost", "no line of its own", "another part shares it"],
)
def test_what_cannot_be_changed_safely_is_told(written: str) -> None:
    with pytest.raises(ConfigError, match=r"write it by hand under collections: notes: \{backend: faiss"):
        with_collection(written, "notes", BLOCK)


def test_the_file_is_replaced_whole_and_keeps_its_permissions(tmp_path) -> None:
    file = tmp_path / "agentflow.yaml"
    file.write_text("a: 1\n")
    file.chmod(0o600)
    write(file, "a: 2\n")
    assert (file.read_text(), file.stat().st_mode & 0o777, len(list(tmp_path.iterdir()))) == (
        "a: 2\n",
        0o600,
        1,
    )
