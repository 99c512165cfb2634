"""The name by which YAML files and the identities of runs know an augmentation."""

from tlx.augmentations import ShearZoom

__all__ = ["ShearZoom"]
