#!/usr/bin/env bash
# torch 2.14.1 with safetensors 0.8.0: torch.load does not read a file that torch.save wrote as NAME.safetensors.
#
# torch.save ignores the name and writes its own archive. torch.load of a path that ends in .safetensors hands the file to
# the safetensors library, whatever is in it, and raises its "header too large". The same bytes are read as an open file,
# and by another name. The other way round, a safetensors file of another name is not read either. (Where safetensors is
# not installed, the branch is another one.)
#
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 safetensors==0.8.0 numpy
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import shutil
from importlib.metadata import version

import torch
from safetensors.torch import save_file

print(f"torch {torch.__version__}, safetensors {version('safetensors')}")
weights = {"weight": torch.arange(6.0).reshape(2, 3)}

torch.save(weights, "weights.safetensors")
try:
    torch.load("weights.safetensors", weights_only=True)
except Exception as error:
    print(f"by its name: {type(error).__name__}: {error}")
    assert "header too large" in str(error)
else:
    raise SystemExit("torch.load read it by its name")
with open("weights.safetensors", "rb") as file:
    assert torch.equal(torch.load(file, weights_only=True)["weight"], weights["weight"])
shutil.copy("weights.safetensors", "weights.pt")
assert torch.equal(torch.load("weights.pt", weights_only=True)["weight"], weights["weight"])
print("as an open file, and by another name: the weights")

save_file(weights, "real.bin")
try:
    torch.load("real.bin", weights_only=True)
except Exception as error:
    print(f"safetensors by another name: {type(error).__name__}")
else:
    raise SystemExit("torch.load read safetensors by another name")
save_file(weights, "real.safetensors")
assert torch.equal(torch.load("real.safetensors", weights_only=True)["weight"], weights["weight"])
PYTHON
