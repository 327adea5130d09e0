#!/usr/bin/env bash
# adversarial-robustness-toolbox 1.20.1: a model that the attack never changes has an empirical robustness of 0.
#
# empirical_robustness is to be the average of the minimal perturbations that an attacker needs, relative to the images
# (Moosavi-Dezfooli et al. 2016): the larger, the more robust. Images on which the attack does not succeed are left out,
# though they need more than all others, and where no image is left the result is 0.0, as if nothing at all were needed.
# So the best model gets the worst score, and a weaker attacker, who changes fewer images, finds the same model less
# robust. Nothing is warned of, and neither a NaN nor a number of images tells of it.
#
# Here the answer is whether an image's mean is above a threshold. The images are gray and lighter than that, so what
# each needs is its distance from the threshold. Lowering the threshold from 0.5 to 0.3 doubles the score, and lowering
# it on to 0.2 ends in 0, though each image then needs more. With an eps of 0.5, 0.12 and 0.04, the score of one and the
# same model is 0.30, 0.15 and 0.
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
from art.metrics import empirical_robustness
from torch import nn

print(f"adversarial-robustness-toolbox {art.__version__}, torch {torch.__version__}")
SHAPE, STEP = (3, 4, 5), 0.01
GRAYS = np.array([0.555, 0.605, 0.655, 0.705, 0.755, 0.805, 0.855, 0.905], np.float32)
IMAGES = np.ones((len(GRAYS), *SHAPE), np.float32) * GRAYS[:, None, None, None]


class LighterThan(nn.Module):
    def __init__(self, threshold):
        super().__init__()
        self.threshold = threshold

    def forward(self, images):
        above = images.flatten(1).mean(1) - self.threshold
        return torch.stack([-above, above], 1)


def robustness(threshold, eps):
    """The metric, and by hand: the distances relative to the images, as the attack's steps reach over them."""
    classifier = PyTorchClassifier(
        LighterThan(threshold), nn.CrossEntropyLoss(), input_shape=SHAPE, nb_classes=2, clip_values=(0, 1)
    )
    score = float(empirical_robustness(classifier, IMAGES, "fgsm", {"eps_step": STEP, "eps": eps}))
    needed = np.ceil((GRAYS - threshold) / STEP) * STEP
    is_changed = needed < eps + STEP / 2
    expected = (needed / GRAYS)[is_changed].mean() if is_changed.any() else 0.0
    assert np.isclose(score, expected, rtol=1e-3)
    print(
        f"threshold {threshold}, eps {eps}: empirical robustness {score:.3f}, {is_changed.sum()} of 8 images changed; "
        f"needed on average {(needed / GRAYS).mean():.3f}"
    )
    return score


print("Models that need more and more:")
weak, middle, strong = (robustness(threshold, 0.3) for threshold in (0.5, 0.3, 0.2))
assert weak < middle and strong == 0
print("One model, and attackers that are allowed less and less:")
large, small, smallest = (robustness(0.5, eps) for eps in (0.5, 0.12, 0.04))
assert large > small > smallest == 0
PYTHON
