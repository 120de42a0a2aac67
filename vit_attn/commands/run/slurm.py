"""SLURM jobs: the number of this job, and requeueing before its time limit."""

import os
import subprocess

from vit_attn.errors import TrainingFailed


def job_id() -> str | None:
    """Return the number of the SLURM job of this process, with that of its array task, or None outside SLURM."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")
    return job if job and job.replace("_", "").isalnum() else None


def was_requeued() -> bool:
    """Return true if this job was started before."""
    return job_id() is not None and os.environ.get("SLURM_RESTART_COUNT", "0") not in ("", "0")


def requeue() -> str:
    """Requeue this SLURM job, which then resumes its run.

    Returns:
        A message for the user.

    Raises:
        TrainingFailed: If SLURM refuses.
    """
    job = job_id()
    if job is None:
        return "there is no SLURM job to requeue"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TrainingFailed(f"SLURM job {job} could not be requeued: {error}") from error
    if done.returncode:
        reason = " ".join((done.stderr or done.stdout).split()) or f"exit code {done.returncode}"
        raise TrainingFailed(f"SLURM job {job} could not be requeued: {reason}")
    return f"SLURM job {job} is requeued and will resume the run"
