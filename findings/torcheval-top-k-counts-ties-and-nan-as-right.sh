#!/usr/bin/env bash
# torcheval 0.0.7: top-k accuracy counts a label as right whose probability is 0, if fewer than k classes are above it.
#
# "k: Number of top probabilities to be considered." For k above 1, multiclass_accuracy, MulticlassAccuracy and hit_rate
# count the classes that are strictly above the label's, and the image is right if they are fewer than k. Of n classes
# that tie, all are among the top k. A confident network's softmax is 1 for one class and underflows to 0 for the others
# (float32 at 104 logits below, float16 at 18), so all labels are in second place, and the top-2 accuracy of images that
# are wrong with full confidence, as those under attack are, is 100 %. The logits of the same network give chance. A
# network that answers the same for all classes is right, and one that has diverged too: nothing is above NaN.
#
# With k = 1 the answer is the argmax, and ties count once. Nothing is warned of.
#
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torcheval==0.0.7 torch==2.14.1 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
from importlib.metadata import version

import torch
from torcheval.metrics import MulticlassAccuracy
from torcheval.metrics.functional import hit_rate, multiclass_accuracy

print(f"torcheval {version('torcheval')}, torch {torch.__version__}")
CLASSES, IMAGES = 10, 2000


def accuracies(scores):
    """Top-1, top-2 and top-5 accuracy by torcheval, and of the classes that torch.topk picks."""
    by_torcheval, by_topk = [], []
    for k in (1, 2, 5):
        metric = MulticlassAccuracy(k=k)
        metric.update(scores, labels)
        by_torcheval.append(float(multiclass_accuracy(scores, labels, k=k)))
        assert float(metric.compute()) == by_torcheval[-1]
        assert k == 1 or abs(float(hit_rate(scores, labels, k=k).mean()) - by_torcheval[-1]) < 1e-6
        by_topk.append(float((scores.topk(k).indices == labels[:, None]).any(1).float().mean()))
    return by_torcheval, by_topk


def shown(values):
    return ", ".join(f"{value:.1%}" for value in values)


torch.manual_seed(0)
print("Top-1, top-2 and top-5 accuracy:")
labels = torch.randint(CLASSES, (IMAGES,))
answers = (labels + torch.randint(1, CLASSES, (IMAGES,))) % CLASSES  # each is wrong
logits = torch.randn(IMAGES, CLASSES)
logits[torch.arange(IMAGES), answers] += 30
seen = {}
for name, scores in (
    ("logits, all wrong by about 30", logits),
    ("their softmax in float32", logits.softmax(1)),
    ("their softmax in float16", logits.half().softmax(1)),
    ("their softmax in float32, times 8", (8 * logits).softmax(1)),
    ("the same for all classes", torch.zeros(IMAGES, CLASSES)),
    ("NaN", torch.full((IMAGES, CLASSES), float("nan"))),
):
    seen[name], picked = accuracies(scores)
    print(f"{name}: {shown(seen[name])}; of the classes that torch.topk picks: {shown(picked)}")
    assert picked[1] < 0.3 and picked[2] < 0.7  # among equals, topk picks any
honest, float32, float16, confident, constant, diverged = seen.values()
assert honest == float32 and honest[0] == 0 and honest[1] < 0.15 and honest[2] < 0.5
assert float16 == confident == [0, 1, 1]
assert constant[1:] == diverged[1:] == [1, 1] and constant[0] < 0.15 and diverged[0] < 0.15
PYTHON
