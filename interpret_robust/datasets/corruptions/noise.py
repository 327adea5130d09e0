"""Noise of a dark scene, of single photons, and of broken pixels: each value of each channel has its own."""

import numpy as np

from interpret_robust.core.arrays import Array

DEVIATION = 0.03
"""Of Gaussian noise, times the severity."""

GRAY = 0.5
"""Where shot noise deviates as much as Gaussian noise does."""

DEFECTS = 0.03
"""Share of values that impulse noise replaces, times the severity."""


def add_gaussian_noise(image: Array, severity: int, random: np.random.Generator) -> Array:
    """Return an image (H, W, C) with Gaussian noise of one deviation everywhere."""
    return image + DEVIATION * severity * random.standard_normal(image.shape)


def add_shot_noise(image: Array, severity: int, random: np.random.Generator) -> Array:
    """Return an image (H, W, C) counted in photons: Poisson(x n) / n, where white has n of them on average.

    Its variance at x is x / n, and n is such that middle gray has that of Gaussian noise.
    """
    photons = GRAY / (DEVIATION * severity) ** 2
    counts: Array = random.poisson(image * photons) / photons
    return counts


def add_impulse_noise(image: Array, severity: int, random: np.random.Generator) -> Array:
    """Return an image (H, W, C) with a share of its values set to 0 or 1, which are as likely (salt and pepper)."""
    chance, salt = random.random(image.shape), random.random(image.shape) < 0.5
    return np.where(chance < DEFECTS * severity, salt, image)
