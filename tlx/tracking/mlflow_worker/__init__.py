"""The process that imports MLflow and writes what a run sends it."""
