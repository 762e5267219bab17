"""The exact curvature of a squared error under one hidden layer of ReLUs, or of none, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .gradients import Grams, dense_layers
from .problem import Problem

__all__ = ["Piecewise"]

AT_A_TIME = 32  # patterns
EXAMPLES = 2048


@dataclass(frozen=True, eq=False)
class Piecewise:
    """Sums over examples of what the matrix needs, for H hidden units, O outputs, b inputs and the constant one.

    Attributes:
        awake: (H, H, b, b), of x x.T where both units are awake
        pulled: (H, b, O), of x y.T where the unit is awake
        named: weights and biases of both layers, absent ones None
    """

    problem: Problem
    awake: Tensor
    pulled: Tensor
    named: tuple[Tensor, Tensor | None, Tensor, Tensor | None]

    @classmethod
    def of(cls, problem: Problem, largest: int) -> Piecewise | None:
        """None where the network or the loss is another."""
        layers = dense_layers(problem.net)
        if len(layers) != 2 or layers[0][1] not in (nn.ReLU, nn.Identity) or layers[1][1] != nn.Identity:
            return None
        held = {k: p.detach() for k, p in problem.net.named_parameters()}
        (first, _), (second, _) = layers
        named = held[f"{first}.weight"], held.get(f"{first}.bias"), held[f"{second}.weight"], held.get(f"{second}.bias")
        fits = problem.x.ndim == 2 and problem.outputs.kind == "mse"
        total = sum(p.numel() for p in held.values())
        if not fits or total > largest or len(named[0]) > 62:
            return None
        moments = _moments_by_pattern if layers[0][1] is nn.ReLU else _moments_of_all
        return cls(problem, *moments(problem, named[0], named[1]), named)

    def matrix(self, exact: bool) -> Tensor:
        """The mean second derivative, (p, p); if not exact, that of Gauss and Newton.

        With M_kl = `awake`, u_k = [w_k, b_k] what enters unit k, v_k what leaves it, and all over O n / 2::

            (u_k, u_l)    v_k.v_l M_kl
            (u_k, v_ol)   v_ok M_kl u_l,  and if exact, for k = l, the sum of x r_o, r the residual, where k is awake
            (v_ok, v_ol)  u_k.T M_kl u_l
        """
        w, b, v, c = self.named
        hidden, outputs = len(w), len(v)
        u = torch.cat([w, w.new_zeros(hidden, 1) if b is None else b[:, None]], 1)
        same = torch.arange(hidden)
        across = torch.einsum("klij,lj->kil", self.awake, u)
        across = torch.cat([across, self.awake[same, same][:, :, -1:]], 2)  # the output's bias sees a constant one
        inner = torch.einsum("ki,kil->kl", u, across)
        inner = torch.cat([inner, inner.new_empty(1, hidden + 1)])
        inner[-1, :-1], inner[-1, -1] = inner[:-1, -1], len(self.problem)
        mixed = torch.einsum("ok,kil->kiol", v, across)
        if exact:
            last = torch.cat([v, v.new_zeros(outputs, 1) if c is None else c[:, None]], 1)
            mixed[same, :, :, same] += across @ last.T - self.pulled
        at_u, at_v = self._places()
        size = 1 + max(int(at_u.max()), int(at_v.max()))
        found = w.new_zeros(size + 1, size + 1)  # the last row and column take what an absent bias would have
        found[at_u.view(-1, 1), at_u.view(1, -1)] = torch.einsum("ok,ol,klij->kilj", v, v, self.awake).reshape(
            at_u.numel(), -1
        )
        mixed = mixed.reshape(at_u.numel(), -1)
        found[at_u.view(-1, 1), at_v.view(1, -1)] = mixed
        found[at_v.view(-1, 1), at_u.view(1, -1)] = mixed.T
        for own in at_v:
            found[own[:, None], own] = inner
        return found[:-1, :-1].mul_(2 / (outputs * len(self.problem)))

    def _places(self) -> tuple[Tensor, Tensor]:
        """The numbers of the parameters u (H, b) and v (O, H + 1); -1 if they are not random, or absent."""
        found, layers = [], [name for name, _ in dense_layers(self.problem.net)]
        starts, at = {}, 0
        for name, p in self.problem.net.named_parameters():
            if name in self.problem.free:
                starts[name], at = at, at + p.numel()
        for layer, weight in zip(layers, (self.named[0], self.named[2])):
            place = torch.full((len(weight), weight.shape[1] + 1), -1)
            if f"{layer}.weight" in starts:
                place[:, :-1] = torch.arange(weight.numel()).view_as(weight) + starts[f"{layer}.weight"]
            if f"{layer}.bias" in starts:
                place[:, -1] = torch.arange(len(weight)) + starts[f"{layer}.bias"]
            found.append(place)
        return found[0], found[1]


def _moments_of_all(problem: Problem, w: Tensor, _b) -> tuple[Tensor, Tensor]:
    """Without an activation all units are awake."""
    hidden, size = len(w), w.shape[1] + 1
    total = w.new_zeros(size, size + problem.y.shape[1])
    for x, y, _ in problem.pieces(EXAMPLES):
        total = total + _with_one(x).T @ torch.cat([_with_one(x), y], 1)
    square, pulled = total[:, :size], total[:, size:]
    return square.expand(hidden, hidden, -1, -1), pulled.expand(hidden, -1, -1)


def _moments_by_pattern(problem: Problem, w: Tensor, b: Tensor | None) -> tuple[Tensor, Tensor]:
    """One small Gram matrix for each set of awake units that occurs, then sums over sets."""
    power = 1 << torch.arange(len(w))
    code = torch.cat([((nn.functional.linear(x, w, b) > 0) * power).sum(1) for x, _, _ in problem.pieces(EXAMPLES)])
    order = code.argsort()
    codes, count = code[order].unique_consecutive(return_counts=True)
    if len(codes) > len(problem) / 4:
        return _moments_by_example(problem, w, b)
    hidden, size, outputs = len(w), w.shape[1] + 1, problem.y.shape[1]
    k, m = torch.triu_indices(hidden, hidden)
    square, pulled = w.new_zeros(len(k), size * size), w.new_zeros(hidden, size * outputs)
    groups = order.split(count.tolist())
    for i in range(0, len(codes), AT_A_TIME):
        squares, pulls = [], []
        for rows in groups[i : i + AT_A_TIME]:
            gram, pull = w.new_zeros(size, size), w.new_zeros(size, outputs)
            for part in rows.split(EXAMPLES):
                x = _with_one(problem.x.index_select(0, part).double())
                gram, pull = gram + x.T @ x, pull + x.T @ problem.y.index_select(0, part).double()
            squares.append(gram.reshape(-1)), pulls.append(pull.reshape(-1))
        bits = (codes[i : i + AT_A_TIME, None] & power).ne(0).double()
        square.addmm_((bits[:, k] * bits[:, m]).T, torch.stack(squares))
        pulled.addmm_(bits.T, torch.stack(pulls))
    full = w.new_empty(hidden, hidden, size, size)
    full[k, m] = full[m, k] = square.view(-1, size, size)
    return full, pulled.view(hidden, size, outputs)


def _moments_by_example(problem: Problem, w: Tensor, b: Tensor | None) -> tuple[Tensor, Tensor]:
    """Where nearly every example has a pattern of its own: the Gram matrix of inputs masked for each unit."""
    hidden, size = len(w), w.shape[1] + 1
    grams, pulled = Grams([torch.arange(hidden * size)[None]]), w.new_zeros(hidden * size, problem.y.shape[1])
    for x, y, _ in problem.pieces(max(1, min(EXAMPLES, (1 << 22) // (hidden * size)))):
        awake = (nn.functional.linear(x, w, b) > 0).double()
        masked = (awake[:, :, None] * _with_one(x)[:, None, :]).flatten(1)
        grams.add(masked)
        pulled = pulled + masked.T @ y
    full = grams.finish()[0].view(hidden, size, hidden, size).transpose(1, 2)
    return full, pulled.view(hidden, size, -1)


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, x.new_ones(len(x), 1)], 1)
