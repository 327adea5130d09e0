#!/usr/bin/env bash
# torchattacks 3.5.1: APGD, APGDT, FAB and Square set the random numbers of the whole process, to seed 0, at every call.
#
# An attack that draws random numbers is expected to go on from the process's generator, as PGD of the same library does,
# or to have one of its own. These four call torch.manual_seed(seed) with seed 0 unless another is given. A program that
# evaluates by them between its epochs then shuffles its images alike in each, whatever seed it was started with.
#
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torchattacks==3.5.1 torch==2.14.1
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch
import torchattacks
from torch import nn

print(f"torchattacks {torchattacks.__version__}, torch {torch.__version__}")
torch.manual_seed(0)
network = nn.Sequential(nn.Flatten(), nn.Linear(12, 5)).eval()
images, labels = torch.rand(4, 3, 2, 2), torch.arange(4)
ATTACKS = {
    "FGSM": {},
    "PGD": {},
    "APGD": {},
    "APGDT": {"n_classes": 5},
    "FAB": {"n_classes": 5},
    "Square": {},
}
for name, options in ATTACKS.items():
    attack = getattr(torchattacks, name)(network, **options)
    numbers = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        attack(images, labels)
        numbers.append(float(torch.rand(())))
    print(f"{name}: the next random number after seeds 1 and 2 is {numbers[0]:.4f} and {numbers[1]:.4f}")
    assert (numbers[0] == numbers[1]) == (name not in ("FGSM", "PGD"))

torch.manual_seed(1)
attack, orders = torchattacks.APGD(network), []
for _ in range(3):
    attack(images, labels)
    orders.append(torch.randperm(8).tolist())
print(f"three epochs, each after an APGD: shuffled to {orders}")
assert orders[0] == orders[1] == orders[2]
PYTHON
