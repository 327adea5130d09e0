"""The files of answers: written, read, described, set side by side. Without torch."""
