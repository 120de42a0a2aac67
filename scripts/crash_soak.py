"""Kill short runs at random moments, resume them, and compare their final weights with those of an uninterrupted run.

    python scripts/crash_soak.py --kills 200 --in-save 50

Runs are forked from one process with all imports, since a start takes seconds. A third of them has TMPDIR on another
file system, where Lightning would stage its checkpoints. For a kill inside a save, the run signals when one begins. The
exit code is 1 if a run could not be resumed or ended with other weights.
"""

import argparse
import contextlib
import os
import random
import select
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from vit_attn.callbacks.run_checkpoint import RunCheckpoint
from vit_attn.cli import main as vit_attn
from vit_attn.commands import lightning  # noqa: F401  imported here so that a forked run starts at once
from vit_attn.data.datasets import coins

CONFIG = Path(__file__).parent.parent / "configs" / "quickstart.yaml"
OPTIONS = [
    *("-c", str(CONFIG), "--data.batch_size=16", "--trainer.max_epochs=3", "--trainer.enable_progress_bar=false"),
    *("--trainer.enable_model_summary=false", "--attention.num_images=0", "--checkpoint.minutes=0.001"),
    *("--data.augment.rand_augment=9", "--data.augment.mixup=0.8", "--model.arch_options.drop_path_rate=0.2"),
    *("--model.arch_options.depth=2", "--model.arch_options.embed_dim=16", "--model.arch_options.num_heads=2"),
    "--model.ema=0.9",
]
SIZES = {"train": 640, "val": 64, "test": 64}
AVERAGED = "current_model_state"
BEGINS, ENDS = b"(", b")"


def start(options: list[str], tmpdir: Path) -> tuple[int, int]:
    """Fork a run; return its process, and a pipe on which it signals that a save begins or has ended."""
    reader, writer = os.pipe()
    process = os.fork()
    if process:
        os.close(writer)
        return process, reader
    os.close(reader)
    os.environ["TMPDIR"] = tempfile.tempdir = str(tmpdir)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(os.open(tmpdir / "stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    save: Any = RunCheckpoint.write_last

    def signal_save(*arguments: Any) -> None:
        os.write(writer, BEGINS)
        save(*arguments)
        os.write(writer, ENDS)

    setattr(RunCheckpoint, "write_last", signal_save)  # noqa: B010  which a type checker would not allow
    code = 99
    with contextlib.suppress(SystemExit):
        code = vit_attn(["fit", *options])
    os._exit(code)


def kill(process: int, pipe: int, aim: bool, rng: random.Random) -> tuple[str, int]:
    """Kill a run after its first save; return ``inside`` a save, ``between`` or ``finished``, and the exit code."""
    saves, saves_before_kill = 0, rng.randint(1, 12)
    delay = rng.uniform(0, 0.006) if aim else rng.uniform(0, 0.3)
    state = ENDS
    while state and (saves < saves_before_kill or (aim and state != BEGINS)):
        state = os.read(pipe, 1)
        saves += state == ENDS
    time.sleep(delay)
    os.kill(process, signal.SIGKILL) if state else None
    _, status = os.waitpid(process, 0)
    while select.select([pipe], [], [], 0)[0] and (more := os.read(pipe, 64)):
        state = more[-1:]
    os.close(pipe)
    if os.WIFEXITED(status):
        return "finished", os.WEXITSTATUS(status)
    return ("inside" if state == BEGINS else "between"), 0


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Load all tensors of a run's last state, raw and averaged."""
    content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return {
        f"{key}.{name}": each for key in ("state_dict", "current_model_state") for name, each in content[key].items()
    }


def main() -> int:
    """Kill, resume and compare runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="kills in all (default: 200)")
    parser.add_argument("--in-save", type=int, default=50, help="kills inside a save, at least (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (default: 0)")
    parser.add_argument("--other-tmp", type=Path, default=Path("/dev/shm"), help="a folder on another file system")
    args = parser.parse_args()
    torch.set_num_threads(1)
    coins.SIZES.update(SIZES)
    rng, counts, failures = random.Random(args.seed), Counter(), []
    with (
        tempfile.TemporaryDirectory() as folder_here,
        tempfile.TemporaryDirectory(dir=args.other_tmp if args.other_tmp.is_dir() else None) as elsewhere,
    ):
        tmpdirs, runs = [Path(folder_here, "tmp"), Path(elsewhere)], Path(folder_here, "runs")
        tmpdirs[0].mkdir()
        different = tmpdirs[0].stat().st_dev != tmpdirs[1].stat().st_dev
        process, pipe = start([*OPTIONS, f"--runs={runs}", "--name=whole"], tmpdirs[0])
        os.waitpid(process, 0)
        os.close(pipe)
        (whole,) = (runs / "whole").iterdir()
        expected = weights(whole)
        number = 0
        while counts["kills"] < args.kills or counts["inside"] < args.in_save:
            number += 1
            name, tmpdir = f"run{number}", tmpdirs[number % 3 == 0]
            options = [*OPTIONS, f"--runs={runs}", f"--name={name}"]
            while True:
                aim = counts["inside"] < args.in_save and rng.random() < 0.7
                outcome, code = kill(*start(options, tmpdir), aim, rng)
                if outcome == "finished":
                    break
                counts.update(["kills", outcome, "elsewhere" if tmpdir == tmpdirs[1] else "here"])
                (folder,) = (runs / name).iterdir()
                options = [f"--resume={folder}"]
            (folder,) = (runs / name).iterdir()
            left = [path.name for path in folder.rglob("*.unfinished")]
            same = code == 0 and all(torch.equal(each, expected[key]) for key, each in weights(folder).items())
            if not same or left:
                last = (tmpdir / "stderr").read_text().strip().splitlines()[-1:]
                failures.append(
                    f"{name}: exit code {code}, {'same' if same else 'other'} weights, unfinished files {left}, {last}"
                )
            counts["runs"] += 1
            if number % 10 == 0:
                print(f"{number} runs, {dict(counts)}", flush=True)
    print(f"runs {counts['runs']}, kills {counts['kills']}, of them inside a save {counts['inside']}")
    print(f"kills with TMPDIR on {'another' if different else 'THE SAME'} file system: {counts['elsewhere']}")
    print(f"runs that could not be resumed or ended with other weights: {len(failures)}")
    for line in failures:
        print(line)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
