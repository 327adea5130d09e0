#!/usr/bin/env bash
# quantus 0.6.0: PointingGame counts an image without an object as a hit.
#
# Its source gives such an image NaN, as the library's other localisation metrics do. But hits are kept in an array of
# booleans, and NaN stored there is True. Nothing is warned of. The share of hits rises with every image whose mask is
# empty, wherever its map points: an explanation that never points at an object scores 50 % where half of the masks are
# empty. RelevanceRankAccuracy of the same images gives NaN.
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
images, classes = np.ones((4, 1, 4, 4), np.float32), np.zeros(4, int)
maps, masks = np.zeros((4, 1, 4, 4)), np.zeros((4, 1, 4, 4), int)
maps[:, 0, 0, 0] = 1
masks[:2, 0, 2:, 2:] = 1


def scores(metric):
    values = metric(disable_warnings=True)(model=model, x_batch=images, y_batch=classes, a_batch=maps, s_batch=masks)
    return np.array(values)


hits, ranks = scores(quantus.PointingGame), scores(quantus.RelevanceRankAccuracy)
print("all maps point at the upper left; objects: lower right, lower right, none, none")
print(f"PointingGame: {hits.tolist()}, share of hits {hits.mean():.0%}")
print(f"RelevanceRankAccuracy: {ranks.tolist()}")
assert hits.tolist() == [False, False, True, True]
assert ranks[:2].tolist() == [0, 0] and np.isnan(ranks[2:]).all()
PYTHON
