"""Count the names that code binds, and those among them that are a function word or a participle alone.

    python tests/words.py [FOLDER ...]             the ratio, and the words by how often each is bound
    python tests/words.py --list [FOLDER ...]      one line a binding: FILE:LINE NAME
    python tests/words.py --spelling [FOLDER ...]  British spellings in text files: FILE:LINE WORD

FOLDER is the package where none is named. A name says what a thing is (a noun) or what a function does (a verb);
`found`, `given`, `of` and `one` say neither. A word inside a longer name, such as `n_of_rows`, is not counted.
"""

import argparse
import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "interpret_robust"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PREPOSITIONS = _words(
    """
    about above across after against along among around at before behind below beside between beyond by down
    during for from in inside into near of off on onto out outside over past since through to toward towards
    under until up upon via with within without here there where nowhere elsewhere everywhere now then again
    once away back apart
    """
)
"""And adverbs of place and time."""

PRONOUNS = _words(
    """
    all another any both each either every everything few fewer he her here him his it its itself least less
    many me mine more most my neither nobody none nothing one ones other others our ours own same several she
    some something such that the their theirs them these they this those us we what whatever which who whose you
    your
    """
)
"""And determiners."""

CONJUNCTIONS = _words(
    """
    although and as because but if nor not only or so than though too unless when whereas whether while yet am
    are be been being can could did do does doing had has have is may might must shall should was were will
    would how why very also else just still
    """
)
"""And auxiliary verbs and particles."""

FUNCTION_WORDS = PREPOSITIONS | PRONOUNS | CONJUNCTIONS

VERBS = _words(
    """
    accelerate activate add analyze append apply ascend ask attach attack attend audit average avoid blend break
    brighten bring build change check choose classify clear close collect combine compare compose compress compute
    copy corrupt count crop cut describe differ differentiate disable distinguish distort divide do doubt draw drop
    embed end enlarge escape exhibit explain explore export fetch find fit flatten fold forecast format freeze
    gather get group hash identify import impute index initialize join judge keep label let list load locate lower
    make map mark match measure merge mirror name normalize number open order overlay own pair parse pass pixelate
    place plan pool predict prepare preserve probe put quote randomize rank read recalibrate reduce refuse register
    remove render renumber reorder replace report reproduce resolve run sample save say scale score seed select set
    share shift shorten show shuffle sort split stack stamp stop strip sum summarize switch tabulate take tell thin
    trace train translate try turn unwrap use validate verify view wait warn watch weigh wrap write
    """
)
"""With which names of functions begin."""

IRREGULAR = _words(
    """
    beaten begun bent blown borne bought broken brought built burnt caught chosen dealt done drawn driven drunk
    eaten fallen felt fed forgotten fought found frozen given gone grown heard held hidden kept known laid lain
    learnt lent lit lost made meant met mistaken paid proven ridden risen said seen sent shaken shone shot shown
    shrunk slept sold sought spent spoken spun stolen stood struck stuck sung sunk swept sworn taken taught
    thrown told torn understood withdrawn woken won worn woven written
    """
)
"""Participles that do not end in -ed, without those that are a noun or a verb's base form as often (run, cost)."""

NOUNS_IN_ED = _words(
    """
    bed bred embed exceed feed need pred proceed red seed shed sled speed succeed wed weed
    """
)

PARTICIPLES_IN_ING = _words(
    """
    according being deciding differing doing existing failing fitting following giving going growing having
    lacking leaving missing noting remaining replacing resulting stopping taking telling using waiting
    """
)
"""Other words in -ing, such as `padding` or `training`, are nouns."""

FIELD_TERMS = _words(
    """
    expected other out predicted pretrained targeted untargeted
    """
)
"""What libraries of the field say too: `__eq__(self, other)`, torch's `out=`, timm's `pretrained=`."""

BRITISH = re.compile(
    r"colour|centre(?!d?\w*-?pi)|metre\b|favour|behaviour|neighbour|honour|labour|grey(?!hound)"
    r"|\bdefence|\blicence|\bmodell|labell|travell|cancell(?!ation)|analys(?:e|ed|er|ing)\b|programme\b|judgement"
    r"|(?:optim|linear|random|local|normal|regular|initial|general|visual|summar|quant|minim|maxim|real|serial"
    r"|standard|organ|recogn|util|character|emphas|factor|penal|parametr|parameter|categor|synchron|vector|token"
    r"|memor|custom|final|equal|special|stabil|discret|binar)is(?:e|ed|er|ers|es|ing|ation|ations)(?![a-z])"
)
"""Spellings of which American English has another, in lower case: to ignore the case takes four times as long."""

TEXT_FILES = {".py", ".md", ".toml", ".yml", ".txt", ".json", ".csv", ".js", ".html", ".css", ".cff"}


@dataclass(frozen=True)
class Binding:
    """A name that a line of a file binds."""

    path: Path
    line: int
    name: str


def is_empty_word(name: str) -> bool:
    """Return whether a name is a function word or a participle alone, whatever its case and outer underscores.

    >>> [is_empty_word(name) for name in ("found", "_of", "is_", "seed", "n_found", "trained", "dataset")]
    [True, True, True, False, False, True, False]
    """
    word = name.strip("_").lower()
    if word in FIELD_TERMS or name == "__all__":
        return False
    if word in FUNCTION_WORDS or word in IRREGULAR or word in PARTICIPLES_IN_ING:
        return True
    return len(word) > 3 and word.endswith("ed") and "_" not in word and word not in NOUNS_IN_ED


def names_of(node: ast.AST) -> Iterator[str]:
    """Yield the names that one node of a syntax tree binds, not those below it."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.arg(arg=name) | ast.alias(asname=str(name)):
            yield name
        case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
            yield name
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            yield name
        case ast.MatchMapping(rest=str(name)):
            yield name


def bindings(*folders: Path) -> list[Binding]:
    """Return every binding of the Python files at or below the folders, in the order of file and line."""
    return [
        Binding(path, getattr(node, "lineno", 0), name)
        for path in _files(folders, {".py"})
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path)))
        for name in names_of(node)
    ]


def empty_words(names: list[Binding]) -> list[Binding]:
    """Return the bindings whose name is a function word or a participle, by file and line."""
    return sorted((b for b in names if is_empty_word(b.name)), key=lambda b: (b.path, b.line, b.name))


def british(*folders: Path) -> list[Binding]:
    """Return every word of British spelling in the text files at or below the folders."""
    return [
        Binding(path, number, line[slice(*match.span())])
        for path in _files(folders, TEXT_FILES)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for match in BRITISH.finditer(line.lower())
    ]


def _files(folders: tuple[Path, ...], suffixes: set[str]) -> list[Path]:
    below = [path for folder in folders for path in ([folder] if folder.is_file() else folder.rglob("*"))]
    return sorted(path for path in below if path.suffix in suffixes and path.is_file())


def main(arguments: list[str]) -> None:
    """Print the counts or one of the two lists."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, default=[PACKAGE], metavar="FOLDER")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--list", action="store_true", help="one line a binding")
    choice.add_argument("--spelling", action="store_true", help="British spellings instead")
    options = parser.parse_args(arguments)
    names = bindings(*options.folders)
    empty = empty_words(names)
    if options.list or options.spelling:
        for binding in british(*options.folders) if options.spelling else empty:
            print(f"{binding.path}:{binding.line} {binding.name}")
        return
    print(f"{len(empty)} of {len(names)} names bound, {len(empty) / max(1, len(names)):.2%}")
    for name, count in Counter(b.name for b in empty).most_common():
        print(f"{count:5} {name}")


if __name__ == "__main__":
    main(sys.argv[1:])
