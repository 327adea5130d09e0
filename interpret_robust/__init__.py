"""Train adversarially robust image classifiers and ask what they look at, and whether that is why they are robust."""
