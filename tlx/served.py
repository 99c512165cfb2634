"""The name by which models that MLflow has logged find what opens them."""

from tlx.inference.mlflow_pyfunc import _load_pyfunc

__all__ = ["_load_pyfunc"]
