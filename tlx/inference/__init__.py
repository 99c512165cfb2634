"""The saved model and what it is used for: prediction, export, serving."""
