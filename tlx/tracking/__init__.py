"""What is logged to MLflow: a tracker for the run, and the process that writes."""
