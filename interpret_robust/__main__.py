"""`irt`, and `python -m interpret_robust`, which is what torchrun starts."""

import sys

from interpret_robust.core.errors import EXIT_INTERRUPTED


def main() -> None:
    """Run `irt`. Ctrl-C while its code is loaded ends it by a sentence too."""
    try:
        from interpret_robust import cli

        cli.main()
    except KeyboardInterrupt:
        print("irt: interrupted.", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
