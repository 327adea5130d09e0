#!/usr/bin/env bash
# quantus 0.6.0: Completeness is False of maps that sum to the change of the answer.
#
# Completeness asks whether a map's entries sum to the answer's change from a baseline to the image. Integrated
# gradients of a linear network do, up to float32's rounding. quantus compares the two numbers by `==`, without a
# tolerance: it is True only where the last bits agree by chance. And unless normalise=False is given, each map is
# divided by its largest entry first, which changes its sum, so that every image is False. The library's other axiomatic
# metrics have a tolerance. Nothing is warned of.
#
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet quantus==0.6.0 captum==0.9.0 torch==2.14.1
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
from importlib.metadata import version

import numpy as np
import quantus
import torch
from captum.attr import IntegratedGradients
from torch import nn

print(f"quantus {version('quantus')}, captum {version('captum')}, torch {torch.__version__}")
torch.manual_seed(0)
images, labels = torch.rand(256, 1, 8, 8), torch.zeros(256, dtype=torch.long)
images[..., 0, 0] = 0  # black, as quantus takes it, is the darkest pixel of an image
network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()
maps = IntegratedGradients(network).attribute(images, torch.zeros_like(images), target=0).detach()
with torch.no_grad():
    change = (network(images) - network(torch.zeros_like(images)))[:, 0]
gap = float((maps.sum((1, 2, 3)) - change).abs().max())


def library(maps, **settings):
    metric = quantus.Completeness(disable_warnings=True, **settings)
    return float(np.mean(metric(network, images.numpy(), labels.numpy(), maps.numpy().copy(), softmax=False)))


largest = float(change.abs().max())
print(f"the answer changes by up to {largest:.2f}; a map's sum misses that by at most {gap:.1e}")
shares = {
    "as it is": library(maps),
    "normalise=False": library(maps, normalise=False),
    "normalise=False, of the same map in double precision": library(maps.double(), normalise=False),
}
for name, share in shares.items():
    print(f"    Completeness is True of {share:.0%} of 256 images, {name}")
assert gap < 1e-6
assert shares["as it is"] == 0 and max(shares.values()) < 0.3
PYTHON
