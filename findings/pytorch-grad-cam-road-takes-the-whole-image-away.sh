#!/usr/bin/env bash
# pytorch-grad-cam 1.5.7: ROAD takes the whole image away where a map is zero on more positions than are to be kept.
#
# ROADMostRelevantFirst(percentile=70) is to take the 30 % most relevant pixels away. It takes those that are not below
# the map's 70th percentile. Grad-CAM cuts negative values off, so where a map is zero on 75 % of its positions that
# percentile is zero, nothing is below it, and all pixels are taken, whatever the map points at. What stands in for them
# is found from the neighbors that are left; none are, so it is noise around zero. Least relevant first takes all the
# zeros for the same reason. The score falls, which counts as a map's merit. Nothing is warned of.
#
# (The library's tutorial sees this with a map of zeros alone, which it calls corrupted.)
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
from pytorch_grad_cam.metrics.road import ROADLeastRelevantFirst, ROADMostRelevantFirst
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

print(f"grad-cam {importlib.metadata.version('grad-cam')}, torch {torch.__version__}")
torch.manual_seed(0)
image = torch.zeros(1, 1, 20, 20)
image[..., 10:, 10:] = 1
network = nn.Sequential(nn.Flatten(), nn.Linear(400, 1, bias=False)).eval()
network[1].weight.data = image.reshape(1, 400) / 100
maps = np.zeros((1, 20, 20), np.float32)
maps[:, :10, :10] = np.linspace(0.01, 1, 100).reshape(10, 10)


def take(metric, share):
    change, left = metric(100 - share)(image, maps, [ClassifierOutputTarget(0)], network, return_visualization=True)
    return round(100 * float((left != image).float().mean())), float(change[0])


print("the class is the light in the lower right; the map points at the upper left and is zero elsewhere, on 75 %")
shares = (10, 25, 30, 50, 80)
most, least = ([take(metric, share) for share in shares] for metric in (ROADMostRelevantFirst, ROADLeastRelevantFirst))
for share, (first, change), (last, _) in zip(shares, most, least, strict=True):
    print(f"    to be taken {share} %: most relevant first {first} %, score {change:+.2f}; least relevant {last} %")
assert [taken for taken, _ in most] == [10, 25, 100, 100, 100]
assert [taken for taken, _ in least] == [75, 75, 75, 75, 80]
assert [round(change, 1) for _, change in most] == [0, 0, -1, -1, -1]
PYTHON
