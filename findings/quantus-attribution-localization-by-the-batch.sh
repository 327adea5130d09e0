#!/usr/bin/env bash
# quantus 0.6.0: a weighted AttributionLocalisation depends on how many images are in the batch, and may be infinite.
#
# With weighted=True, the share of a map that lies on the object is weighted by the object's share of the image. The
# source divides the object's size by `x_batch[2:].size`, the size of all images of the batch but the first two, and not
# by that of one image. So `batch_size`, which should only say how much is computed at once, changes the scores. In a
# batch of one or two images, as the last one of a dataset may be, they are infinite, and so is the dataset's mean.
#
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet quantus==0.6.0 torch==2.14.1
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import numpy as np
import quantus
import torch
from torch import nn

print(f"quantus {importlib.metadata.version('quantus')}, numpy {np.__version__}, torch {torch.__version__}")
model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).eval()
images, classes = np.ones((8, 1, 4, 4), np.float32), np.zeros(8, int)
maps, masks = np.zeros((8, 1, 4, 4)), np.zeros((8, 1, 4, 4), int)
maps[:, 0, 1, 1] = 1
masks[:, 0, :2, :2] = 1


def scores(weighted, batch_size):
    metric = quantus.AttributionLocalisation(weighted=weighted, disable_warnings=True)
    values = metric(model=model, x_batch=images, y_batch=classes, a_batch=maps, s_batch=masks, batch_size=batch_size)
    return np.array(values)


print("8 equal images, the object is a quarter of each, and the map lies on it")
for batch_size, expected in ((8, 8 * [1 / 24]), (4, 8 * [1 / 8]), (3, 6 * [1 / 4] + 2 * [np.inf]), (1, 8 * [np.inf])):
    plain, weighted = scores(False, batch_size), scores(True, batch_size)
    print(f"batches of {batch_size}: plain {plain.mean():.3f}, weighted {weighted.round(3).tolist()}")
    assert np.allclose(plain, 1) and np.allclose(weighted, expected)
PYTHON
