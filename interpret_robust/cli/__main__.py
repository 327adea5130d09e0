"""`python -m interpret_robust.cli` is `irt`."""

from interpret_robust.cli import main

if __name__ == "__main__":
    main()
