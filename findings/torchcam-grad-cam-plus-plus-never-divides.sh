#!/usr/bin/env bash
# torch-cam 0.5.0: GradCAMpp leaves the division out, and weights channels by the cubes of their gradients.
#
# Its docstring gives the formula of Grad-CAM++: a weight is the sum of alpha * relu(g) over the positions, with
# alpha = g^2 / (2 g^2 + g^3 * sum(A)) for the gradient g and the activations A. The source divides in place what a
# mask has picked, `alpha[mask].div_(...)`. A mask picks a copy, so the quotient is thrown away and alpha stays g^2. A
# channel of half the gradient then gets an eighth of the weight: the largest gradients drown the others.
#
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torchcam==0.5.0 torch==2.14.1
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from torch import nn
from torchcam.methods import GradCAMpp

print(f"torch-cam {importlib.metadata.version('torchcam')}, torch {torch.__version__}")

network = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 1, bias=False)).eval()
network[3].weight.data = torch.tensor([[4.0, 2.0]])
image = torch.zeros(1, 2, 2, 2)
image[0, 0, 0, 0] = image[0, 1, 1, 1] = 1
with GradCAMpp(network, network[0]) as extractor:
    scores = network(image.requires_grad_())
    (found,) = extractor(0, scores, normalized=False)
found = found[0].diagonal()

gradient = network[3].weight.detach()[0] / 4
alpha = gradient**2 / (2 * gradient**2 + gradient**3)
formula, cubes = 4 * alpha * gradient, 4 * gradient**3
print("channels of gradients 1 and 0.5 on 2x2 positions, each active at one position of its own:")
print(f"    map by the formula {formula[0]:.3f}, {formula[1]:.3f}, by torch-cam {found[0]:.3f}, {found[1]:.3f}")
print(f"    second by first: {formula[1] / formula[0]:.3f} by the formula, {found[1] / found[0]:.3f} by torch-cam")
assert torch.allclose(formula, torch.tensor([4 / 3, 4 / 5]))
assert torch.allclose(found, cubes) and cubes.tolist() == [4, 0.5]
PYTHON
