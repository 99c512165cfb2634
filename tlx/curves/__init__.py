"""Learning curves: accuracy against the number of training images, and what more images would give."""
