"""One small file of each schema, kept to show that what was once written can still be read, checked and drawn.

    python tests/make_golden.py

writes the files of schemas that have none yet, NAME-VERSION.h5: eight images of 16x16 through a network that knows a
few digits. A file that is there stays as it is, since it stands for those that users have. A changed schema needs a
new version and a new file; as long as its version was never released, delete the file and make it again.
"""

import shutil
import tempfile
from pathlib import Path

import torch
from trainer import train

from interpret_robust import analyses
from interpret_robust.analyses.engine.work import Work
from interpret_robust.datasets import Dataset, load
from interpret_robust.datasets.cluttered_digits import make_cluttered_digits
from interpret_robust.datasets.npz import Arrays, write_npz
from interpret_robust.models import checkpoint
from interpret_robust.models.variants import find_variant
from interpret_robust.results.schema import Schema
from interpret_robust.training.job import Job
from interpret_robust.training.recipe import Recipe

FOLDER = Path(__file__).parent / "golden"
DATA = FOLDER / "tiny-digits.npz"
SOURCE = "tests/golden/tiny-digits.npz"
"""How the data are named in the files, wherever the repository lies."""
CPU = torch.device("cpu")


def file_of(schema: Schema) -> Path:
    """The golden file of a schema."""
    return FOLDER / f"{schema.name}-{schema.version}.h5"


def make_data() -> None:
    """Cluttered digits at half the resolution, 40 to learn and 8 to look at."""
    full = make_cluttered_digits(40, 8)
    arrays: Arrays = {}
    for part in ("train", "test"):
        split = full.split(part)
        assert split.masks is not None
        arrays |= {f"x_{part}": split.images[:, ::2, ::2], f"y_{part}": split.labels}
        arrays[f"mask_{part}"] = split.masks[:, ::2, ::2]
    write_npz(DATA, arrays)


def train_checkpoint(dataset: Dataset, name: str, seed: int, folder: Path) -> checkpoint.Checkpoint:
    """A network after a few epochs."""
    recipe = Recipe("golden", epochs=6, batch_size=20, learning_rate=0.1)
    job = Job(dataset, "small", find_variant(name), seed, recipe)
    return checkpoint.read(train(job, folder, source=SOURCE, device=CPU))


def main() -> None:
    """Make what is missing."""
    if not DATA.exists():
        make_data()
    dataset = load(str(DATA))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = train_checkpoint(dataset, "at-att", 0, folder)
        readers = {
            "none": [],
            "evaluators": [train_checkpoint(dataset, "natural", seed, folder) for seed in (1, 2)],
            "copies": [train_checkpoint(dataset, "at-att", 1, folder)],
        }
        for analysis in map(analyses.get, analyses.list_names()):
            path = file_of(analysis.schema)
            if path.exists():
                continue
            work = Work(
                analysis,
                model,
                dataset,
                folder,
                settings=analysis.settings(),
                split="test",
                limit=None,
                batch_size=8,
                device=CPU,
                evaluators=readers[analysis.readers][: analysis.most_readers],
                source=SOURCE,
            )
            shutil.copyfile(work.run(), path)
            print(f"made {path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
