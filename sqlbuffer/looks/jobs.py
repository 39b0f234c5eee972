"""The jobs of a buffer, each with its state."""

from __future__ import annotations

from typing import Any

from sqlbuffer.core import leases
from sqlbuffer.core.transaction import Transaction


def find_jobs(tx: Transaction) -> list[dict[str, Any]]:
    """Return the jobs of a buffer, each with its state."""
    return [
        {
            "buffer": tx.buffer.name,
            "job": job.name,
            "state": _state(job),
            "owner": job.owner,
            "lease_until": job.lease_until,
            "last_started_at": job.last_started_at,
            "last_finished_at": job.last_finished_at,
            "runs": job.runs,
            "new": job.measured_now - job.measured,
            "schedule": job.schedule,
            "last_error": job.last_error,
        }
        for job in leases.find(tx)
    ]


def _state(job: leases.Job) -> str:
    if job.is_held:
        # A lease that has run out by the clock may be taken only by a process that has watched it.
        has_run_out = job.lease_until is not None and job.lease_until < job.now
        return "silent" if has_run_out else "running"
    return "broken off" if job.is_broken_off else "idle"
