"""The paper's two-layer network with orthonormal weights: principal components, made nonlinear."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..checks import check_generator
from ..network.connections import HiddenUnits
from .parts import as_function, linear

__all__ = ["OrthogonalAutoencoder"]

CONSTRAINTS = ("both", "encoder", "decoder", "none")


class OrthogonalAutoencoder(nn.Module):
    """Two dense layers with orthonormal weights around a code of few numbers (section 2.2).

    ``f(x) = output(D (gain * activation(E x + b)) + c)`` where the rows of E and the columns of D are orthonormal:
    ``E E.T = I = D.T D``. (As the paper writes it, ``W W.T = I`` for the tall matrices, this is impossible.) With
    identity activations the best such network is the projection on the first principal components; E and D are then
    determined up to a rotation, E to R E and D to D R.T, which `align` removes.

    Args:
        n_inputs: length of x
        n_hidden: length of the code, at most that of what is constrained
        n_outputs: as `n_inputs` if not given
        activation: of the code, a module (it is copied), its class or any function; by default the identity
        output: likewise, of the output
        constrain: which of the layers are orthonormal, "both", "encoder", "decoder" or "none"
        gain: whether every number of the code has a factor, trained, at first 1. Without it no output is longer
            than its input (apart from the biases), which only an identity activation can afford.
        bias: whether the layers have one; without biases the subspace is that of SSA rather than of PCA
        generator: of the initialisation by Haar's distribution, that of no preferred direction
    """

    def __init__(
        self,
        n_inputs: int,
        n_hidden: int,
        n_outputs: int | None = None,
        *,
        activation: nn.Module | Callable[[Tensor], Tensor] | None = None,
        output: nn.Module | Callable[[Tensor], Tensor] | None = None,
        constrain: str = "both",
        gain: bool = False,
        bias: bool = True,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        if constrain not in CONSTRAINTS:
            raise ValueError(f"constrain must be one of {', '.join(CONSTRAINTS)}, got {constrain!r}")
        self.constrain = constrain
        self._options = {"n_inputs": n_inputs, "n_hidden": n_hidden, "n_outputs": n_outputs, "gain": gain, "bias": bias}
        self._options |= {"activation": activation, "output": output}
        self.encoder = linear(n_inputs, n_hidden, bias=bias, generator=generator)
        self.decoder = linear(n_hidden, n_inputs if n_outputs is None else n_outputs, bias=bias, generator=generator)
        self.activation, self.output = as_function("activation", activation), as_function("output", output)
        self.gain = nn.Parameter(torch.ones(n_hidden)) if gain else None
        for name in ("encoder", "decoder"):
            if constrain in (name, "both"):
                _constrain(name, getattr(self, name), n_hidden, generator)

    def reset_parameters(self) -> None:
        """Initialise again, the orthonormal layers too; as in torch, from the global stream."""
        with torch.no_grad():
            for layer in (self.encoder, self.decoder):
                layer.reset_parameters()  # of an orthonormal layer that is the bias only
                if parametrize.is_parametrized(layer):
                    rows, columns = layer.weight.shape
                    layer.weight = haar(rows, columns).to(layer.weight)
            if self.gain is not None:
                self.gain.fill_(1.0)

    def hidden_units(self) -> list[HiddenUnits]:
        """Return what `align` has to know of the code."""
        gain = None if self.gain is None else "gain"
        return [HiddenUnits("encoder", "decoder", self.activation, gain, free=self.constrain == "none")]

    def hidden(self, x: Tensor) -> Tensor:
        """Return the code of x, as the decoder receives it: (..., n_inputs) to (..., n_hidden)."""
        code = self.activation(self.encoder(x))
        return code if self.gain is None else code * self.gain

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.decoder(self.hidden(x)))

    def __deepcopy__(self, memo):
        memo[id(self)] = twin = self.__class__.__new__(self.__class__)
        twin.__dict__ = copy.deepcopy(self.__dict__, memo)
        for layer in filter(parametrize.is_parametrized, twin.children()):
            # torch lets copies share the class that holds `weight`, and remove_parametrizations deletes it from there
            own = layer.__class__
            layer.__class__ = type(own.__name__, own.__bases__, dict(own.__dict__))
        return twin

    def __reduce_ex__(self, protocol):
        # torch does not pickle parametrized modules, which have a class of their own; worker processes need it
        held = [name for name in ("encoder", "decoder") if parametrize.is_parametrized(getattr(self, name))]
        if not held:
            return super().__reduce_ex__(protocol)
        constrain = "both" if len(held) == 2 else held[0]
        options = {**self._options, "constrain": constrain}
        return _rebuild, (type(self), options, self.state_dict(), self.training), {"constrain": self.constrain}

    def extra_repr(self) -> str:
        return f"constrain={self.constrain!r}, gain={self.gain is not None}"


def _rebuild(cls, options: dict, state: dict, training: bool) -> OrthogonalAutoencoder:
    model = cls(**options, generator=torch.Generator())
    model.to(next(iter(state.values())))
    model.load_state_dict(state)
    return model.train(training)


class Cayley(nn.Module):
    """A matrix with orthonormal columns (or rows, if it is wide) as a turn of a fixed one, which is its base.

    ``Y -> (I - A/2)^-1 (I + A/2) Y`` with ``A = W Y.T - Y W.T`` and W free. A has rank 2 d for d columns, so by
    Woodbury's identity only a system of that size is solved (Wen and Yin 2013).

    torch's own `orthogonal` has three maps. Householder's reflections have no batching rule, so under `vmap` they
    warn and run member by member; `cayley` and `matrix_exp` batch, but work with n by n matrices, and complete the
    initial weight to such a matrix from the global stream. The price here: turns by exactly half a circle are out of reach,
    and so are, for a square matrix, those of the other determinant.
    """

    base: Tensor

    def __init__(self, base: Tensor):
        super().__init__()
        self.register_buffer("base", base.detach().clone())

    def forward(self, free: Tensor) -> Tensor:
        wide = free.shape[-2] < free.shape[-1]
        w, y = (free.mT, self.base.mT) if wide else (free, self.base)
        u, v = torch.cat([w, y], -1), torch.cat([y, -w], -1)
        eye = torch.eye(u.shape[-1], dtype=u.dtype, device=u.device)
        turned = y + u @ torch.linalg.solve(eye - v.mT @ u / 2, v.mT @ y)
        return turned.mT if wide else turned

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Make an assigned weight the base, without a turn."""
        error = _distance_to_orthonormal(weight)
        if weight.shape != self.base.shape or not error < 1e-4:
            raise ValueError(
                f"weight must be {tuple(self.base.shape)} and orthonormal, got {tuple(weight.shape)}, off by {error:.1e}: "
                "orthonormalise it with torch.linalg.qr"
            )
        self.base = _polished(weight.detach())
        return torch.zeros_like(weight)

    def _apply(self, fn, recurse=True):
        before = self.base.dtype
        super()._apply(fn, recurse)
        if self.base.dtype != before:  # float32 is orthonormal to 1e-7, which `.double()` would make permanent
            self.base = _polished(self.base)
        return self


def haar(rows: int, columns: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw a matrix with orthonormal columns, or rows if it is wide, without a preferred direction."""
    z = torch.randn(max(rows, columns), min(rows, columns), generator=check_generator(generator), dtype=torch.float64)
    q, r = torch.linalg.qr(z)
    q = q * torch.where(r.diagonal() < 0, -1.0, 1.0)  # LAPACK chooses the signs of r, which biases q
    return (q if rows >= columns else q.T).to(torch.get_default_dtype())


def _constrain(name: str, layer: nn.Linear, n_hidden: int, generator) -> None:
    shape = layer.weight.shape
    if n_hidden > min(shape):
        raise ValueError(
            f"n_hidden must be at most {min(shape)} for an orthonormal {name}, got {n_hidden}: leave it out of `constrain`"
        )
    with torch.no_grad():
        layer.weight.copy_(haar(shape[0], shape[1], generator))
    parametrize.register_parametrization(layer, "weight", Cayley(layer.weight))


def _tall(weight: Tensor) -> Tensor:
    return weight if weight.shape[-2] >= weight.shape[-1] else weight.mT


def _distance_to_orthonormal(weight: Tensor) -> float:
    y = _tall(weight.detach())
    return float((y.mT @ y - torch.eye(y.shape[-1], dtype=y.dtype, device=y.device)).abs().max())


def _polished(weight: Tensor) -> Tensor:
    """Return the orthonormal matrix nearest to one that nearly is: two Newton steps, each of which squares the error."""
    y = _tall(weight)
    for _ in range(2):
        y = y @ (3 * torch.eye(y.shape[-1], dtype=y.dtype, device=y.device) - y.mT @ y) / 2
    return y if weight.shape[-2] >= weight.shape[-1] else y.mT
