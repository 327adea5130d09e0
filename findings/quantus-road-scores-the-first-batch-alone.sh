#!/usr/bin/env bash
# quantus 0.6.0: ROAD is the accuracy of the first batch alone, and so is what SensitivityN correlates.
#
# ROAD takes the most relevant pixels away and gives the model's accuracy on all images without them. `batch_size`, 64
# unless given, should only say how much is computed at once. Each batch leaves one array of hits behind, and what is
# computed at the end reads `self.evaluation_scores[0]`, the first of them. All other images are classified, and then
# not counted. In a dataset in the order of its classes, the first batch is of one class. Here the first 64 of 256
# images are those that the model has wrong: ROAD's accuracy is 0 in batches of 64, and 75 % in one batch. SensitivityN
# ends in the same way: other images behind the first batch do not change its score. Nothing is warned of.
#
# (The images here are gray: with colors, ROAD raises an IndexError.)
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
random = np.random.default_rng(0)
images = random.uniform(0.4, 0.6, (256, 1, 8, 8)).astype(np.float32)
images[:64] /= 10  # class 0 is what is bright: the model has these wrong, and all others right
labels = np.zeros(256, int)
maps = random.uniform(size=images.shape)
network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()
network[1].weight.data = torch.stack([torch.ones(64), torch.zeros(64)])
network[1].bias.data = torch.tensor([0.0, 16.0])


def accuracy_without(batch_size, images=images):
    metric = quantus.ROAD(percentages=[10, 20, 50], disable_warnings=True)
    np.random.seed(0)
    scores = metric(network, images, labels, maps, softmax=False, batch_size=batch_size)
    return [float(scores[share]) for share in (10, 20, 50)]


def correlation(batch_size, images=images):
    metric = quantus.SensitivityN(features_in_step=8, disable_warnings=True)
    return float(metric(network, images, labels, maps, softmax=False, batch_size=batch_size)[0])


with torch.no_grad():
    right = (network(torch.from_numpy(images)).argmax(1) == 0).numpy()
print(f"the model has {right[:64].mean():.0%} of the first 64 images right, and {right.mean():.0%} of all 256")
found = {size: accuracy_without(size) for size in (16, 64, 128, 256)}
for size, accuracies in found.items():
    shown = ", ".join(f"{accuracy:.0%}" for accuracy in accuracies)
    print(f"    ROAD in batches of {size}: {shown} without 10, 20 and 50 % of the pixels")
black = images.copy()
black[64:] = 0.05
for size in (64, 256):
    same, others = correlation(size), correlation(size, black)
    print(f"    SensitivityN in batches of {size}: {same:.4f}; with other images behind the first 64: {others:.4f}")
assert found[16] == found[64] == [0, 0, 0]
assert found[128] == [0.5, 0.5, 0.5] and found[256] == [0.75, 0.75, 0.75]
assert accuracy_without(64, black) == found[64] and accuracy_without(256, black) != found[256]
assert correlation(64) == correlation(64, black) and abs(correlation(256) - correlation(256, black)) > 0.01
PYTHON
