"""Jobs of SLURM: which one this is, and how it is queued again when its time is over."""

import os
import subprocess

from vit_attn.errors import TrainingFailed


def job_id() -> str | None:
    """The number of the SLURM job that this is part of, with that of its task in an array."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")
    return job if job and job.replace("_", "").isalnum() else None


def was_requeued() -> bool:
    """Whether this job was started before."""
    return job_id() is not None and os.environ.get("SLURM_RESTART_COUNT", "0") not in ("", "0")


def requeue() -> str:
    """Have SLURM run this job again; it goes on with its run by itself.

    Returns:
        What was done, in a sentence.

    Raises:
        TrainingFailed: If SLURM refuses.
    """
    job = job_id()
    if job is None:
        return "no SLURM job to queue again"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TrainingFailed(f"SLURM job {job} could not be queued again: {error}") from error
    if done.returncode:
        why = " ".join((done.stderr or done.stdout).split()) or f"exit code {done.returncode}"
        raise TrainingFailed(f"SLURM job {job} could not be queued again: {why}")
    return f"SLURM job {job} is queued again and will go on"
