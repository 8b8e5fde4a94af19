"""Start and monitor tuning runs."""
