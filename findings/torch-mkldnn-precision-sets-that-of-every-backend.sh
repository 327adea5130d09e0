#!/usr/bin/env bash
# torch 2.14.1: what sets the float32 precision of mkldnn, the CPU's library, sets that of every backend, CUDA too.
#
# torch.backends.fp32_precision is the general setting, and each backend has one of its own, which is to hold there
# alone. That of mkldnn is read from mkldnn's place and written to the general one (torch/backends/mkldnn/__init__.py:
# the getter names "mkldnn", the setter "generic"). A program that asks for exact products on the CPU so turns TF32 off
# on the GPU, and one that saves all settings and gives them back, the general before the special, gives the general one
# mkldnn's value. Nothing is warned of. The settings of mkldnn's single operations, such as mkldnn.matmul, are their own.
#
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch

backends = torch.backends


def settings():
    return {
        "general": backends.fp32_precision,
        "cuda.matmul": backends.cuda.matmul.fp32_precision,
        "mkldnn": backends.mkldnn.fp32_precision,
        "mkldnn.matmul": backends.mkldnn.matmul.fp32_precision,
    }


print(f"torch {torch.__version__}")
backends.fp32_precision = "tf32"
first = settings()
print("the general one is tf32:", first)
backends.mkldnn.matmul.fp32_precision = "ieee"
second = settings()
print("mkldnn.matmul is ieee:  ", second)
backends.mkldnn.fp32_precision = "ieee"
third = settings()
print("mkldnn is ieee:         ", third)
assert set(first.values()) == {"tf32"}
assert second == first | {"mkldnn.matmul": "ieee"}
assert set(third.values()) == {"ieee"}
PYTHON
