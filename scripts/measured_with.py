"""Origin of a measurement: commit of this checkout, versions, and the device."""

import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("torch", "torchvision", "lightning", "timm")


def commit() -> str:
    """Commit of this checkout, with a + if files differ from it; without git, a hash of the sources.

    A copy without ``.git`` may name its commit in the variable ``GIT_COMMIT``.
    """
    if named := os.environ.get("GIT_COMMIT"):
        return named
    git = ["git", "-C", str(ROOT)]
    if (ROOT / ".git").exists() and shutil.which("git"):
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True)
        if not head.returncode:
            return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
    digest = hashlib.sha256()
    for path in sorted([*ROOT.glob("vit_attn/**/*.py"), *ROOT.glob("configs/**/*.yaml")]):
        digest.update(path.read_bytes())
    return f"source {digest.hexdigest()[:8]}"


def versions() -> str:
    """Versions of Python and of the packages that compute."""
    return ", ".join(
        [f"Python {platform.python_version()}", *(f"{p} {importlib.metadata.version(p)}" for p in PACKAGES)]
    )


def device_name() -> str:
    """Name of the GPU, or the CPU with the number of its cores."""
    if smi := shutil.which("nvidia-smi"):
        found = subprocess.run([smi, "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
        if found.returncode == 0 and found.stdout.strip():
            return found.stdout.strip().splitlines()[0]
    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.+)", info.read_text()) if info.is_file() else None
    return f"{len(os.sched_getaffinity(0))} CPU cores, {model[1] if model else platform.machine()}"


def context() -> dict[str, str]:
    """Origin of a measurement that is made now: commit, versions, device and date."""
    return {
        "commit": commit(),
        "versions": versions(),
        "device": device_name(),
        "date": time.strftime("%Y-%m-%d"),
    }
