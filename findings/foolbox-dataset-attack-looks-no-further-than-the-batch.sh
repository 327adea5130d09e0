#!/usr/bin/env bash
# foolbox 3.3.4: DatasetAttack tries no more images of its dataset than the attacked batch has.
#
# Its documentation: it draws from the given dataset until adversarial examples for all inputs have been found, and the
# dataset may be fed in many batches. But its source draws numbers below the size of the attacked batch, not below the
# size of the dataset, and leaves out the number that the attacked image has in its batch. So a batch of n images only
# ever meets the first n of the dataset, the i-th image never the i-th of them, and a single image meets none: it comes
# back as it was, as one that resists. Nothing is warned of.
#
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet foolbox==3.3.4 torch==2.14.1
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import foolbox
import torch
from torch import nn

print(f"foolbox {foolbox.__version__}, torch {torch.__version__}")
network = nn.Sequential(nn.Flatten(), nn.Linear(1, 2)).eval()
network[1].weight.data, network[1].bias.data = torch.tensor([[-1.0], [1.0]]), torch.tensor([1.0, 0.0])
model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
dark, light = torch.full((2, 1, 1, 1), 0.1), torch.full((98, 1, 1, 1), 0.9)
dataset = torch.cat([dark, light])
usable = int((model(dataset).argmax(1) == 1).sum())

found = []
for size in range(1, 5):
    attack = foolbox.attacks.DatasetAttack(distance=foolbox.distances.l2)
    for part in dataset.split(10):
        attack.feed(model, part)
    images, labels = torch.full((size, 1, 1, 1), 0.2), torch.zeros(size, dtype=torch.long)
    adversarial, _, success = attack(model, images, labels, epsilons=None)
    assert torch.equal(adversarial, torch.where(success[:, None, None, None], 0.9, images))
    found.append(success.tolist())

print(f"dataset of {len(dataset)} images, {usable} of them adversarial for any dark image; the first two are not")
for size, success in enumerate(found, 1):
    print(f"    batch of {size} equal dark images: adversarial examples for {sum(success)} of {size}")
assert usable == 98
assert found == [[False], [False, False], [True, True, False], [True, True, True, True]]
PYTHON
