"""`python -m interpret_robust` is `irt`: what torchrun starts."""

from interpret_robust.cli import main

if __name__ == "__main__":
    main()
