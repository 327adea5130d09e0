#!/usr/bin/env bash
# quantus 0.6.0: Monotonicity is True of every map, that of minus the evidence too.
#
# Monotonicity (Arya et al. 2019) begins at a baseline, puts features in from the least to the most relevant one,
# and asks whether the answer never falls. quantus puts them in by the function that other metrics take them out by: it
# writes the baseline to them. They hold the baseline already, so the model sees the same blank image at each step, and
# an answer that never changes does not fall. Of the explained image no more than its darkest (or lightest) value is
# used. Higher is better by this metric, and every method has the best score. Nothing is warned of. So it is with the
# baselines "black", "white" and a number.
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
torch.manual_seed(0)
images = torch.rand(32, 1, 8, 8)
images[..., 0, 0] = 0
images, labels = images.numpy(), np.zeros(32, int)
network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2, bias=False)).eval()
seen = []
network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))


def library(maps, baseline="black", take_absolute=False):
    metric = quantus.Monotonicity(perturb_baseline=baseline, abs=take_absolute, disable_warnings=True)
    return float(np.mean(metric(network, images, labels, maps.copy(), softmax=False)))


def by_hand(maps):
    """The share of images whose answer never falls while pixels come in, the least relevant first."""
    never = 0
    weights = network[1].weight.detach().numpy()[0]
    for image, relevance in zip(images.reshape(32, 64), maps.reshape(32, 64), strict=True):
        shown, answers = np.full(64, image.min()), []
        for pixel in np.argsort(relevance):
            shown[pixel] = image[pixel]
            answers.append(float(shown @ weights))
        never += bool(np.all(np.diff(answers) >= -1e-6))
    return never / 32


print("share of images of which Monotonicity is True, by the library and by hand, of linear networks:")
mixed = torch.randn(64).sign()
signs = {"each pixel is for the class": 1, "each pixel is against it": -1, "half and half": mixed}
for name, sign in signs.items():
    network[1].weight.data = sign * torch.rand(2, 64)
    evidence = network[1].weight.detach().numpy()[0].reshape(1, 1, 8, 8) * images
    noise = np.random.default_rng(0).normal(size=images.shape)
    for maps, kind in ((evidence, "the evidence"), (-evidence, "minus the evidence"), (noise, "noise")):
        answers = [library(maps, start, absolute) for start in ("black", "white", 0.5) for absolute in (False, True)]
        print(f"    {name}, the map is {kind}: {answers[0]:.0%}, by hand {by_hand(maps):.0%}")
        assert answers == [1] * 6
        assert by_hand(maps) == (name == "each pixel is for the class")
seen.clear()
library(evidence)
inputs = torch.stack(seen).reshape(len(seen), -1)
kinds = len(torch.unique(inputs, dim=0))
print(f"the network was asked {len(inputs)} times, and saw {kinds} batch of images, all black")
assert len(inputs) == 64 and bool((inputs == 0).all())
PYTHON
