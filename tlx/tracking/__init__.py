"""What MLflow is told: a tracker for the run, and the process that writes."""
