"""Studies: what to train and ask, verdicts on claims, the report."""
