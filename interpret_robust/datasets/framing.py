"""How a picture of any size becomes one of the size that a network takes: resized, then cropped in the center."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from interpret_robust.core.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Framing:
    """A resize and a center crop, as torchvision's `Resize` and `CenterCrop` do them on pictures of PIL.

    Attributes:
        resize: (side,) for the shorter side, or (height, width) whatever the shape was.
        crop: height and width; black is added around a picture that is smaller.
        interpolation: `bilinear`, `bicubic` or another name of torchvision's `InterpolationMode`.

    Example:
        >>> Framing((256,), (224, 224)).text
        'shorter side 256, bilinear, center 224x224'
    """

    resize: tuple[int, ...]
    crop: tuple[int, int]
    interpolation: str = "bilinear"

    @classmethod
    def square(cls, side: int) -> Self:
        """Return what `--size` asks for: the shorter side resized to `side`, the center cropped."""
        return cls((side,), (side, side))

    @classmethod
    def cover(cls, size: tuple[int, int], shape: tuple[int, int]) -> Self:
        """Return the least resize of a picture of `size` that covers `shape`, both (height, width), and the crop."""
        if shape[0] == shape[1]:
            return cls.square(shape[0])
        scale = max(side / length for side, length in zip(shape, size, strict=True))
        return cls((round(scale * size[0]), round(scale * size[1])), shape)

    @property
    def text(self) -> str:
        """Return the resize and the crop in words."""
        size = f"shorter side {self.resize[0]}" if len(self.resize) == 1 else "x".join(map(str, self.resize))
        return f"{size}, {self.interpolation}, center {self.crop[0]}x{self.crop[1]}"

    def entries(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def __call__(self, picture: "Image", *, is_mask: bool = False) -> "Image":
        """Return a picture resized and cropped; of a mask each pixel is that of the nearest one."""
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms import functional as transforms

        mode = InterpolationMode("nearest" if is_mask else self.interpolation)
        return transforms.center_crop(  # type: ignore[no-any-return]
            transforms.resize(picture, list(self.resize), mode), list(self.crop)
        )


def find_common_size(sizes: Sequence[tuple[int, int]], name: str) -> tuple[int, int]:
    """Return the (height, width) that all pictures have. Raises UserError where they differ."""
    if len(kinds := sorted(set(sizes), key=lambda size: size[0] * size[1])) != 1:
        (low_height, low_width), (high_height, high_width) = kinds[0], kinds[-1]
        raise UserError(
            f"{name} has pictures of {len(kinds)} sizes, from {low_width}x{low_height} to {high_width}x{high_height}, "
            "and this model does not say which it takes: --size N resizes the shorter side to N and crops the center."
        )
    return kinds[0]
