"""Attacks in the ball of a norm, and checks of adversarial images."""
