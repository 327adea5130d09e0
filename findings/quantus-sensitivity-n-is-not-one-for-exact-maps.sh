#!/usr/bin/env bash
# quantus 0.6.0: SensitivityN of exact attributions is not 1, and its sign may be wrong.
#
# Sensitivity-n (Ancona et al. 2018) takes n features away and correlates, over images, the fall of the answer with the
# sum of these n attributions. Of a linear network, weight times input is exact: the fall is the sum, for each n, and
# the correlation is 1. quantus takes features away in steps, and those of earlier steps stay away, but it sums the
# attributions of the last step alone. So it correlates the fall by 48 features with the attributions of 4 of them. Only
# the first n is right. FaithfulnessEstimate of the same library, which puts features back after each step, gives 1.
# Nothing is warned of.
#
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet quantus==0.6.0 torch==2.14.1
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
from importlib.metadata import version

import numpy as np
import quantus
import torch
from torch import nn

print(f"quantus {version('quantus')}, torch {torch.__version__}")
STEP = 4
torch.manual_seed(0)
images = torch.rand(64, 1, 8, 8)
images[..., 0, 0] = 0  # black, as quantus takes it, is the darkest pixel of an image
images, labels = images.numpy(), np.zeros(64, int)
network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2, bias=False)).eval()
weights = network[1].weight.detach().numpy()[0].reshape(1, 1, 8, 8)
maps = {"weight times input": weights * images, "minus that": -weights * images, "the input": images}


def library(values):
    settings = {"features_in_step": STEP, "abs": False, "normalise": False, "disable_warnings": True}
    metric = quantus.SensitivityN(n_max_percentage=1, return_aggregate=False, **settings)
    return np.array(metric(network, images, labels, values.copy(), softmax=False), float)


def by_hand(values):
    """The correlation over images for n = 4, 8, ... features, the most relevant first, as quantus takes them away."""
    flat, order = values.reshape(64, 64), np.argsort(-values.reshape(64, 64), axis=1)
    sums = np.take_along_axis(flat, order, 1).cumsum(1)
    falls = np.take_along_axis((weights * images).reshape(64, 64), order, 1).cumsum(1)
    return np.array([np.corrcoef(sums[:, n - 1], falls[:, n - 1])[0, 1] for n in range(STEP, 65, STEP)])


def estimate(values):
    settings = {"features_in_step": STEP, "abs": False, "normalise": False, "disable_warnings": True}
    metric = quantus.FaithfulnessEstimate(perturb_baseline="black", **settings)
    return float(np.mean(metric(network, images, labels, values.copy(), softmax=False)))


for name, values in maps.items():
    scores, expected = library(values), by_hand(values)
    print(f"{name}: SensitivityN {scores.mean():+.2f} (mean over n), by hand {expected.mean():+.2f}")
    print(f"    FaithfulnessEstimate {estimate(values):+.2f}")
    print("    " + ", ".join(f"n={n} {score:+.2f}" for n, score in zip(range(STEP, 65, STEP), scores, strict=True)))
exact = library(maps["weight times input"])
assert np.allclose(by_hand(maps["weight times input"]), 1, atol=1e-4) and estimate(maps["weight times input"]) > 0.999
assert exact[0] > 0.999 and exact[1:].max() < 0.9 and exact.min() < 0 and exact.mean() < 0.6
PYTHON
