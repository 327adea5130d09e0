"""Write `analyses/engine/options.json` from the analyses of this package: python tests/make_options.py."""

import json
from dataclasses import asdict

from interpret_robust import analyses
from interpret_robust.analyses.engine.options import FILE, describe
from interpret_robust.core.files import replace_file


def text() -> str:
    """Return what the file has to hold."""
    return json.dumps({name: asdict(describe(analyses.get(name))) for name in analyses.own_names()}, indent=1) + "\n"


if __name__ == "__main__":
    with replace_file(FILE) as partial:
        partial.write_text(text(), encoding="utf-8")
