"""Optuna studies: what is searched, trials, and what they found."""
