"""How a network learns: the plan of a phase, solvers, the trainer, checkpoints, metrics."""
