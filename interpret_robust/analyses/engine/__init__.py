"""What all analyses share: how they run, their settings, their printed tables."""
