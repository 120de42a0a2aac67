"""docs/scale.md: its arithmetic is computed, and its command for torchrun runs as it stands."""

import doctest
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOC = ROOT / "docs/scale.md"


def test_the_arithmetic_is_right():
    text = re.sub(r"^```.*$", "", DOC.read_text(), flags=re.MULTILINE)
    story = doctest.DocTestParser().get_doctest(text, {}, DOC.name, str(DOC), 0)
    assert len(story.examples) > 5
    assert doctest.DocTestRunner(verbose=False).run(story).failed == 0


@pytest.mark.parametrize(("devices", "a_step"), [(8, 1024), (64, 8192), (512, 65536)])
def test_the_table_of_batches_is_computed(devices: int, a_step: int):
    epoch = 1_281_167 // a_step
    rate = f"{1e-3 * (a_step / 1024) ** 0.5:.1e}".replace("e-0", "e-")
    assert f"| {devices} | {a_step:,} | {epoch:,} | {300 * epoch:,} | {rate} |" in DOC.read_text()
    assert a_step == 128 * devices


def test_torchrun_trains_on_tar_files_with_two_processes(shards: Path, tmp_path: Path):
    pytest.importorskip("webdataset")
    shell = "\n".join(re.findall(r"```sh\n(.*?)```", DOC.read_text(), re.DOTALL)).replace("\\\n", " ")
    (line,) = [line for line in shell.splitlines() if line.startswith("torchrun")]
    _, *words = shlex.split(line)
    shards.rename(tmp_path / "here")
    (tmp_path / "shards").symlink_to(tmp_path / "here")
    fewer = (
        "--trainer.max_epochs=2 --trainer.accelerator=cpu --trainer.enable_progress_bar=false "
        "--attention.num_images=0 --model.arch_options.depth=1 --model.arch_options.embed_dim=32 "
        "--model.arch_options.num_heads=2 --trainer.enable_model_summary=false"
    ).split()
    call = [sys.executable, "-m", "torch.distributed.run", *words, *fewer]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    assert "best validation accuracy: " in done.stdout
    assert list(tmp_path.glob("runs/vit/*/checkpoints/last.ckpt"))


def test_the_paths_of_the_page_exist():
    paths = set(re.findall(r"(?:configs|scripts|docs|vit_attn)/[\w/]+\.\w+", DOC.read_text()))
    assert len(paths) >= 2
    assert all((ROOT / path).is_file() for path in paths)
