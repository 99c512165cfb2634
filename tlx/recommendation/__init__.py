"""Which network, and how much of it to train: many candidates, judged by validation within a time that is given."""
