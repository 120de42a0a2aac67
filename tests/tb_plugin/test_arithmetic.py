import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("file", sorted(HERE.glob("*.test.mjs")), ids=lambda file: file.name)
def test_the_modules_without_dom(file):
    node = shutil.which("node")
    if not node:
        pytest.skip("no node on this machine: `apt-get install nodejs`")
    done = subprocess.run([node, "--test", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
