"""Networks that answer two calls: `model(images)` gives logits, `model.features(images)` what they rest on."""

from interpret_robust.models.classifier import ARCHITECTURES, Classifier, Features, build

__all__ = ["ARCHITECTURES", "Classifier", "Features", "build"]
