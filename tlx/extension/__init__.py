"""A finished run with more images: a class more, or more of the classes that it has."""
