#!/usr/bin/env bash
# adversarial-robustness-toolbox 1.20.1: loss_sensitivity falls as one over the number of images that it is given.
#
# loss_sensitivity is "the average loss sensitivity": the mean, over images, of the norm of the gradient of an image's
# loss. More images should estimate the same number more exactly. But `PyTorchClassifier.loss_gradient` differentiates
# the loss as it was given for training, and nn.CrossEntropyLoss(), which the library's examples give, is the mean over
# the batch. So each gradient is divided by the number of images, and the metric takes the mean of that: of 256 images
# it is a 256th of what it is, and whichever model was measured on more images looks the smoothest. The right number is
# W^T (p - y) by hand for a linear network, and what ART gives for one image at a time. Nothing is warned of.
#
# A loss with reduction="sum" mends it.
#
# (packaging, which the library imports, is none of the packages that pip installs with it.) Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet adversarial-robustness-toolbox==1.20.1 torch==2.14.1 packaging==26.4
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import art
import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from art.metrics import loss_sensitivity
from torch import nn

print(f"adversarial-robustness-toolbox {art.__version__}, torch {torch.__version__}")
CLASSES, SHAPE = 4, (3, 5, 6)

torch.manual_seed(0)
linear = nn.Linear(int(np.prod(SHAPE)), CLASSES)
network = nn.Sequential(nn.Flatten(), linear).eval()
images = torch.rand(256, *SHAPE)
labels = torch.arange(256) % CLASSES
one_hot = nn.functional.one_hot(labels, CLASSES).float()


def measured(count, reduction):
    """The metric of the first images."""
    loss = nn.CrossEntropyLoss(reduction=reduction)
    classifier = PyTorchClassifier(network, loss, input_shape=SHAPE, nb_classes=CLASSES, clip_values=(0, 1))
    return float(loss_sensitivity(classifier, images[:count].numpy(), one_hot[:count].numpy()))


def by_hand(count):
    with torch.no_grad():
        residual = network(images[:count]).softmax(1) - one_hot[:count]
        return float((residual @ linear.weight).norm(dim=1).mean())


print("images  mean loss  sum loss  by hand")
for count in (1, 4, 32, 256):
    mean, total, exact = measured(count, "mean"), measured(count, "sum"), by_hand(count)
    print(f"{count:6}  {mean:9.5f}  {total:8.5f}  {exact:7.5f}")
    assert np.isclose(total, exact, rtol=1e-4) and np.isclose(mean * count, exact, rtol=1e-4)
assert measured(256, "mean") < measured(1, "mean") / 100 and 0.5 < by_hand(256) / by_hand(1) < 2
PYTHON
