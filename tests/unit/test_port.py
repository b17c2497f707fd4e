"""How many files a server may open."""

import subprocess
import sys

import pytest

TOLD = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from agentflow.cli.port import widened
widened()
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(("soft", "hard", "after"), [(256, 4096, (4096, 4096)), (512, 512, (512, 512))])
def test_a_server_opens_as_many_files_as_it_may(soft, hard, after) -> None:
    command = [sys.executable, "-c", TOLD.format(soft=soft, hard=hard)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"{after}\n"
