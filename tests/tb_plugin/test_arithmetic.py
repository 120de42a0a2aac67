import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def test_the_arithmetic_of_the_page():
    node = shutil.which("node")
    if not node:
        pytest.skip("no node on this machine: `apt-get install nodejs`")
    done = subprocess.run([node, "--test", str(HERE / "arithmetic.test.mjs")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
