"""The covariance of a fitted network from the shape of its loss: the sandwich and Laplace's approximation."""

from .laplace import laplace
from .matrices import hessian
from .sandwich import sandwich

__all__ = ["hessian", "laplace", "sandwich"]
