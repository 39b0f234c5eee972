"""Training on stored rows: under a lease, on a schedule, in the background."""
