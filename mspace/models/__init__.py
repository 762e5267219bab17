"""The networks of the paper and their like; everything else in the package takes any `torch.nn.Module`."""

from .dense import mlp
from .orthogonal import OrthogonalAutoencoder

__all__ = ["OrthogonalAutoencoder", "mlp"]
