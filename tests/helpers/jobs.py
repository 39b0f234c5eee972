"""Jobs of a store."""

from sqlbuffer.core.leases import Job
from sqlbuffer.retraining.worker import RETRAIN
from sqlbuffer.store import SampleStore


def job_of(store: SampleStore, name: str = RETRAIN) -> Job:
    return next(job for job in store.jobs() if job.name == name)
