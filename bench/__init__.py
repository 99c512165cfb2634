"""`python -m bench`: tlx against the loop that a user writes after a tutorial, and against other frameworks."""
