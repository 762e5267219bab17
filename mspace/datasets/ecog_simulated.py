"""A cortex that is known: pink noise, and where the hand is moved less beta and more high gamma."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ..checks import check_generator, check_int, check_real, seeded
from ..training import member_seeds
from .ecog import Ecog, Trials

RATE = 200.0  # samples a second
GRID = (4, 3)  # regions, a unit apart
ACTIVE = [5, 6]  # regions that move the hand
BETA, GAMMA = (15.0, 25.0), (65.0, 95.0)  # Hz
CORNER = 1.0  # Hz, below which an amplifier lets no more through
AMPLITUDE = {"beta": 1.0, "gamma": 0.6, "common": 0.5}  # standard deviations, the background of a region has one
SPREAD = 0.5  # of a region's activity, in units of the grid
JITTER = 0.3  # of an electrode about the region it was put over
LEAD = 0.1  # seconds by which the cortex is ahead of the hand


@dataclass(frozen=True, eq=False)
class SimulatedEcog:
    """A subject: the recording, its trials, and the truth.

    Attributes:
        ecog: signal (T, C) and the position of the hand (T, 1)
        trials: the recording in n pieces, targets (n,) are 1 for move and 0 for rest, as many of each
        positions: (C, 2) of the electrodes, in units of the grid of regions
        centres: (K, 2) of the regions, the same for every subject
        mixing: (C, K), how regions reach electrodes; squares sum to one over regions
        active: (K,) which regions move the hand
        informative: (C,) which electrodes have more than half of their cortical power from those
    """

    ecog: Ecog
    trials: Trials
    positions: Tensor
    centres: Tensor
    mixing: Tensor
    active: Tensor
    informative: Tensor


def simulated_ecog(
    n_subjects: int = 1,
    *,
    n_trials: int = 200,
    n_samples: int = 256,
    n_electrodes: int | tuple[int, int] = (12, 16),
    fall: float = 0.6,
    rise: float = 1.0,
    noise: float = 0.5,
    generator: Generator | None = None,
) -> list[SimulatedEcog]:
    """Simulate subjects who move a hand or rest, at 200 samples a second, with electrodes at places of their own.

    Twelve regions, 4 by 3, each have pink noise, a beta rhythm (15 to 25 Hz) and high gamma (65 to 95 Hz). Where the hand
    is moved beta falls to ``1 - fall * hand`` and gamma rises to ``1 + rise * hand``, a tenth of a second before the hand,
    which goes out and back once in each trial with a move. Electrodes see regions nearby, pink noise of their own and
    some that is common to all. Subject i does not depend on how many follow.

    Args:
        n_trials: one after another in the recording, each of `n_samples`, at least half a second
        n_electrodes: of every subject, or the least and the largest number; below twelve some regions have none
        fall: of beta, zero and ``rise=0`` for a hand that leaves no trace
        rise: of high gamma
        noise: standard deviation of each electrode's own noise, where the background of a region has 1
    """
    n_subjects, n_trials = check_int(n_subjects, "n_subjects", 1), check_int(n_trials, "n_trials", 2)
    n_samples = check_int(n_samples, "n_samples", int(RATE / 2))
    pair = isinstance(n_electrodes, (tuple, list)) and len(n_electrodes) == 2
    least, most = n_electrodes if pair else (n_electrodes,) * 2
    least = check_int(least, "n_electrodes", len(ACTIVE))
    sizes = n_trials, n_samples, least, check_int(most, "n_electrodes", least)
    levels = [check_real(v, n, ends="[)") for n, v in (("fall", fall), ("rise", rise), ("noise", noise))]
    return [_subject(seeded(seed), *sizes, *levels) for seed in member_seeds(n_subjects, generator)]


def _subject(
    g: Generator, n_trials: int, n_samples: int, least: int, most: int, fall: float, rise: float, noise: float
) -> SimulatedEcog:
    centres = torch.cartesian_prod(*(torch.arange(float(n), dtype=torch.float64) for n in GRID))
    n_regions = len(centres)
    positions = _positions(centres, int(torch.randint(least, most + 1, (1,), generator=g)), g)
    mixing = torch.exp(-((torch.cdist(positions, centres) / SPREAD) ** 2) / 2)
    mixing = mixing / mixing.norm(dim=1, keepdim=True)
    labels = (torch.arange(n_trials) % 2)[torch.randperm(n_trials, generator=g)]
    trace, drive = _hand(labels, n_samples, g)
    total, moves = n_trials * n_samples, torch.zeros(n_regions, 1, dtype=torch.float64)
    moves[ACTIVE] = 1
    beta = AMPLITUDE["beta"] * (1 - fall * moves * drive.flatten()).clamp(min=0)
    gamma = AMPLITUDE["gamma"] * (1 + rise * moves * drive.flatten())
    sources = pink(n_regions, total, generator=g)
    sources += beta * rhythm(n_regions, total, BETA, generator=g)
    sources += gamma * rhythm(n_regions, total, GAMMA, generator=g)
    signal = mixing @ sources + noise * pink(len(positions), total, generator=g)
    signal += AMPLITUDE["common"] * pink(1, total, generator=g)
    names = tuple(f"E{i}" for i in range(len(positions)))
    ecog = Ecog(signal.T.contiguous(), trace.reshape(-1, 1), RATE, names)
    inputs = signal.unflatten(1, (n_trials, n_samples)).transpose(0, 1).unsqueeze(1).contiguous()
    trials = Trials(inputs, labels, torch.arange(n_trials) * n_samples, total)
    informative = mixing[:, ACTIVE].square().sum(1) > 0.5
    return SimulatedEcog(ecog, trials, positions, centres, mixing, moves[:, 0] > 0, informative)


def _positions(centres: Tensor, n: int, g: Generator) -> Tensor:
    """Draw electrodes (n, 2) over the active regions first, then the others, then anywhere, numbered at random."""
    others = [k for k in torch.randperm(len(centres), generator=g).tolist() if k not in ACTIVE]
    more = torch.randint(len(centres), (max(0, n - len(centres)),), generator=g).tolist()
    over = torch.tensor([*ACTIVE, *others, *more])[:n]
    jitter = JITTER * (2 * torch.rand(n, 2, generator=g, dtype=torch.float64) - 1)
    return (centres[over] + jitter)[torch.randperm(n, generator=g)]


def _hand(labels: Tensor, n_samples: int, g: Generator) -> tuple[Tensor, Tensor]:
    """Draw the hand (n, S) out and back as a raised cosine, and the cortex ahead of it."""
    size, length, onset = torch.rand(3, len(labels), 1, generator=g, dtype=torch.float64)
    size, length = labels[:, None] * (0.6 + 0.8 * size), n_samples * (0.4 + 0.2 * length)
    lead = LEAD * RATE
    onset = lead + onset * (n_samples - lead - length)
    time = torch.arange(n_samples, dtype=torch.float64)
    trace, drive = (
        size * (1 - torch.cos(2 * math.pi * ((time - begin) / length).clamp(0, 1))) / 2
        for begin in (onset, onset - lead)
    )
    return trace, drive


def pink(n: int, length: int, *, generator: Generator | None = None) -> Tensor:
    """Draw Gaussian noise (n, length) whose power falls as one over the frequency, from `CORNER` on, of unit variance."""
    f = torch.fft.rfftfreq(length, 1 / RATE, dtype=torch.float64)
    return _coloured(n, length, f.clamp(min=CORNER).rsqrt(), generator)


def rhythm(n: int, length: int, band: tuple[float, float], *, generator: Generator | None = None) -> Tensor:
    """Draw Gaussian noise (n, length) within a band of frequencies in Hz, of unit variance."""
    f = torch.fft.rfftfreq(length, 1 / RATE, dtype=torch.float64)
    return _coloured(n, length, ((f >= band[0]) & (f <= band[1])).double(), generator)


def _coloured(n: int, length: int, gain: Tensor, generator: Generator | None) -> Tensor:
    white = torch.randn(n, length, generator=check_generator(generator), dtype=torch.float64)
    both = gain.square().sum() + gain[1 : (length + 1) // 2].square().sum()  # of positive and negative frequencies
    return torch.fft.irfft(torch.fft.rfft(white) * (gain * (length / both).sqrt()), length)
