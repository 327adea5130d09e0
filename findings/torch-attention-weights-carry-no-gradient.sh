#!/usr/bin/env bash
# torch 2.14.1: the attention weights that nn.MultiheadAttention returns have a gradient function and never a gradient.
#
# `layer(x, x, x, average_attn_weights=False)` gives the output and the weights (N, heads, T, T), and the output is these
# weights times the values. Transformer relevance (Chefer et al. 2021) asks for the gradient of the answer with respect to
# them. The weights that are returned are a view taken beside the product, not the factor in it: they require a gradient
# and have a grad_fn, retain_grad() is accepted, and after backward() their gradient is None, without a word. With
# torch.autograd.grad it is an error. A rule that reads `weights.grad` sees no attention anywhere.
#
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from torch import nn

print(f"torch {torch.__version__}")
torch.manual_seed(0)
layer = nn.MultiheadAttention(8, 2, batch_first=True).eval()
tokens = torch.rand(1, 4, 8)

output, weights = layer(tokens, tokens, tokens, average_attn_weights=False)
values = layer.in_proj_weight[16:] @ tokens[0].T + layer.in_proj_bias[16:, None]
by_hand = torch.cat([weights[0, head] @ values[4 * head : 4 * head + 4].T for head in (0, 1)], 1)
difference = float((layer.out_proj(by_hand) - output[0]).abs().max())
print(f"the output is the weights times the values, to {difference:.0e}")
assert difference < 1e-6

assert weights.requires_grad and weights.grad_fn is not None
weights.retain_grad()
output.square().sum().backward()
print(f"grad_fn {weights.grad_fn.name()}; gradient after backward: {weights.grad}")
assert weights.grad is None

output, weights = layer(tokens, tokens, tokens, average_attn_weights=False)
try:
    torch.autograd.grad(output.square().sum(), weights)
except RuntimeError as error:
    print(f"torch.autograd.grad: {str(error).split('.')[0]}")
    assert "to not have been used in the graph" in str(error)
else:
    raise SystemExit("torch.autograd.grad gave a gradient")
PYTHON
