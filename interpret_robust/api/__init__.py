"""What the commands do, from Python.

import interpret_robust as ir

model = ir.load("checkpoints/cluttered-digits-small-at-seed0.safetensors")
images, labels = ir.samples("cluttered-digits", 8)
adversarial = ir.PGD(eps=8 / 255, steps=20)(model, images, labels)
answers = ir.analyze("attention-rank", [model, other], limit=200)
answers["spearman"], answers.figure()
"""
