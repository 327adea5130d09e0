"""Files of weights as people's programs wrap them: what fits a network, and what the file says beside it."""
