#!/usr/bin/env bash
# pytorch-grad-cam 1.5.7: after one guided backpropagation, Grad-CAM of the network's last ReLU is that of its first.
#
# GuidedBackpropReLUModel replaces the ReLUs of the model that it is given, and afterwards puts nn.ReLU back: one new
# object in all the places. The answers are the same, but hooks that were set on the old layers are gone, and a hook on
# any ReLU now runs at each of them. GradCAM takes the first activations that its hook has seen, so whichever ReLU is
# named, the map is the first one's, of the right shape and without a word.
#
# (That its maps add up when it is called again with the same tensor is the library's issue 401.)
#
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet grad-cam==1.5.7 torch==2.14.1
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import numpy as np
import torch
from pytorch_grad_cam import GradCAM, GuidedBackpropReLUModel
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

print(f"grad-cam {importlib.metadata.version('grad-cam')}, torch {torch.__version__}")
torch.manual_seed(0)
network = nn.Sequential(
    *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)),
).eval()
image = torch.rand(1, 3, 16, 16)


def grad_cam(layer):
    with GradCAM(network, [layer]) as method:
        return method(image.clone(), [ClassifierOutputTarget(0)])[0]


def difference(one, other):
    return float(np.abs(one - other).max())


first, last, answer = grad_cam(network[1]), grad_cam(network[4]), network(image)
passes = []
network[4].register_forward_hook(lambda *_: passes.append(1))
GuidedBackpropReLUModel(network)(image.clone(), 0)
after = grad_cam(network[4])
print(f"the answer is the same: {torch.equal(answer, network(image))}; both ReLUs are one: {network[1] is network[4]}")
print(f"passes that a hook on the last ReLU has seen: {len(passes)} of 3")
from_last, from_first = difference(after, last), difference(after, first)
print(f"map of the last ReLU: up to {from_last:.3f} from what it was, {from_first} from that of the first ReLU")
assert torch.equal(answer, network(image)) and network[1] is network[4] and not passes
assert from_last > 0.1 and from_first == 0
PYTHON
