"""What is wrong with the data, and what a run's figures are worth."""
