#!/usr/bin/env bash
# zennit 0.5.1: windows of Occlusion that reach over an edge go on at the opposite edge of the image.
#
# A sliding window at the right edge is expected to be cut off there, as in captum, whose documentation says so. zennit
# makes each window by rolling the first one (`Tensor.roll`), and what is rolled over an edge comes in at the other
# side. Such a window shows, or hides, two or four separate places at once, and its score is added to all of them. So it
# is wherever the stride is smaller than the window, as in the example of zennit's documentation (windows of 8 in
# strides of 4), or does not divide the size of the image. Here all evidence is in the lower right corner, and 44 % to
# 75 % of the map are at the three other corners, in 28x28 pixels as strong as at the evidence. Nothing is warned of.
#
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet zennit==0.5.1 captum==0.9.0 torch==2.14.1
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
from importlib.metadata import version

import captum.attr
import torch
from torch import nn
from zennit.attribution import Occlusion

print(f"zennit {version('zennit')}, captum {version('captum')}, torch {torch.__version__}")


def corners(values):
    """The shares of a map in its four quarters: upper left, upper right, lower left, lower right."""
    half = values.shape[-1] // 2
    quarters = [part for rows in values[0, 0].split(half, 0) for part in rows.split(half, 1)]
    return [float(part.sum() / values.sum()) for part in quarters]


for size, window, stride in ((32, 8, 4), (28, 8, 8), (32, 8, 8)):
    image = torch.zeros(1, 1, size, size)
    image[..., -3:, -3:] = 1
    network = nn.Sequential(nn.Flatten(), nn.Linear(size * size, 1, bias=False)).eval()
    network[1].weight.data.fill_(1)  # the class is light, and all light is in the lower right corner
    with Occlusion(network, window=(window, window), stride=(stride, stride)) as attributor:
        _, wrapped = attributor(image, lambda output: output)
    occlusion = captum.attr.Occlusion(network)
    cut = occlusion.attribute(image, sliding_window_shapes=(1, window, window), strides=(1, stride, stride), target=0)
    print(f"{size}x{size}, window {window}, stride {stride}: parts of the map by quarter, the last has the evidence")
    for name, values in (("zennit", wrapped), ("captum", cut)):
        shown = ", ".join(f"{share:.0%}" for share in corners(values))
        print(f"    {name}: {shown}; upper left pixel {float(values[0, 0, 0, 0] / values.max()):.2f} of the largest")
    assert corners(cut) == [0, 0, 0, 1]
    if size % stride or stride < window:
        assert sum(corners(wrapped)[:3]) > 0.4 and wrapped[0, 0, 0, 0] > 0.2 * wrapped.max()
    else:
        assert corners(wrapped) == [0, 0, 0, 1]
PYTHON
