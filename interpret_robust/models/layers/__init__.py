"""The layers of anyone's network: which of them give features at positions of the image, and which one is taken."""
