"""Attacks in the l-infinity ball, and checks of adversarial images."""
