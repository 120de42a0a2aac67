"""Send signals to a random rank of runs on two processes at random moments, and check that all ranks end.

    python scripts/signal_tries.py --tries 20

Each try starts a new run; the signal may come during the start. One line is printed per try. The exit code is 1 if a
rank was still alive after 60 seconds, or if a run ended with the exit code 0.
"""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIG = Path(__file__).parent.parent / "configs" / "quickstart.yaml"
OPTIONS = [
    *("-c", str(CONFIG), "--data.batch_size=16", "--trainer.enable_progress_bar=false", "--trainer.max_epochs=1000"),
    *("--trainer.limit_train_batches=60", "--trainer.limit_val_batches=20", "--attention.num_images=0"),
    *("--model.arch_options.depth=1", "--model.arch_options.embed_dim=16", "--model.arch_options.num_heads=2"),
    *("--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"),
]
LIMIT = 60.0


def ranks_of(process: int) -> list[int]:
    """List the process and the ranks that it launched."""
    children = [int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return [process, *(child for child in children if b"vit_attn" in Path(f"/proc/{child}/cmdline").read_bytes())]


def is_alive(process: int) -> bool:
    """Return true if a process exists and is not a zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def attempt(number: int, folder: Path, rng: random.Random, moments: tuple[float, float]) -> bool:
    """Start a run and send a signal; return true if all ranks ended in time."""
    command = [sys.executable, "-m", "vit_attn", "fit", *OPTIONS, f"--runs={folder / str(number)}"]
    log = folder / f"{number}.log"
    with log.open("wb") as file:
        run = subprocess.Popen(command, stdout=file, stderr=file, env=os.environ | {"OMP_NUM_THREADS": "1"})
        time.sleep(moment := rng.uniform(*moments))
        ranks = ranks_of(run.pid)
        rank, signum = rng.randrange(len(ranks)), rng.choice([signal.SIGTERM, signal.SIGINT])
        os.kill(ranks[rank], signum)
        sent_at = time.monotonic()
        while (left := [each for each in ranks if is_alive(each)]) and time.monotonic() - sent_at < LIMIT:
            run.poll()
            time.sleep(0.05)
        seconds = time.monotonic() - sent_at
        for each in left:
            os.kill(each, signal.SIGKILL)
        code = run.wait()
    messages = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("vit-attn:")]
    print(
        f"{number}: {signum.name} to rank {rank} of {len(ranks)} after {moment:.1f} s: all ended in {seconds:.1f} s, ",
        end="",
    )
    print(f"code {code}; {messages[-1][10:90] if messages else 'no message'}", flush=True)
    return code != 0 and not left


def main() -> int:
    """Run all tries."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=20, help="runs (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="seed of ranks, signals and moments (default: 0)")
    parser.add_argument(
        "--moments", type=float, nargs=2, default=(10.0, 30.0), help="seconds after the start, from and to"
    )
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        passed = [attempt(number, Path(folder), rng, tuple(args.moments)) for number in range(1, args.tries + 1)]
    print(f"{sum(passed)} of {len(passed)} ended within {LIMIT:.0f} s on all ranks, and not with code 0")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
