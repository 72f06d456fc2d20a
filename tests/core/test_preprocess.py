"""From an image file to what a network takes: equal to torchvision's transform, for every kind of file and tensor."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import skimage.data
import torch
from PIL import Image
from refusals import refusal
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.preprocess import FORMATS, IMAGENET_MEAN, IMAGENET_STD, Interpolation, Preprocess, read_image, stack
from fbnetv3_zoo.zoo import ARCHS, PUBLISHED

Pixels = npt.NDArray[np.uint8]
FILTERS = {
    Interpolation.NEAREST: v2.InterpolationMode.NEAREST,
    Interpolation.BILINEAR: v2.InterpolationMode.BILINEAR,
    Interpolation.BICUBIC: v2.InterpolationMode.BICUBIC,
}
SIZES = [(224, 224), (225, 224), (300, 200), (201, 300), (242, 500), (37, 501), (1000, 13), (1, 9), (6, 5)]


@pytest.fixture(scope="module")
def photos() -> dict[str, Image.Image]:
    """Photographs that ship with scikit-image."""
    names = ("astronaut", "coffee", "chelsea", "rocket", "camera")
    return {name: Image.fromarray(getattr(skimage.data, name)()) for name in names}


def _torchvision(preprocess: Preprocess, image: Image.Image) -> npt.NDArray[np.float32]:
    transform = v2.Compose(
        [
            v2.Resize(preprocess.resize, FILTERS[preprocess.interpolation]),
            v2.CenterCrop(preprocess.resolution),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(preprocess.mean, preprocess.std),
        ]
    )
    array: npt.NDArray[np.float32] = transform(image).numpy()
    return array


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea", "rocket"])
@pytest.mark.parametrize("arch", ["fbnetv3_a", "fbnetv3_g", "fbnetv2_f1"])
def test_photographs_as_torchvision_prepares_them(photos: dict[str, Image.Image], name: str, arch: str) -> None:
    preprocess = Preprocess.for_arch(ARCHS[arch])
    array = preprocess.array(photos[name])
    assert array.dtype == np.float32
    assert array.shape == (3, ARCHS[arch].resolution, ARCHS[arch].resolution)
    assert array.flags.c_contiguous
    np.testing.assert_allclose(array, _torchvision(preprocess, photos[name]), atol=1e-6)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("interpolation", Interpolation)
@pytest.mark.parametrize("resize", [224, 242, 231])
def test_any_size_as_torchvision_prepares_it(
    photos: dict[str, Image.Image], size: tuple[int, int], interpolation: Interpolation, resize: int
) -> None:
    preprocess = Preprocess(resize, 224, interpolation)
    image = photos["astronaut"].crop((100, 50, 500, 400)).resize(size)
    np.testing.assert_allclose(preprocess.array(image), _torchvision(preprocess, image), atol=1e-6)


def test_gray_networks(photos: dict[str, Image.Image]) -> None:
    preprocess = Preprocess.for_arch(replace(ARCHS["fbnetv3_a"], in_channels=1))
    assert preprocess.mean == pytest.approx((sum(IMAGENET_MEAN) / 3,))
    assert preprocess.std == pytest.approx((sum(IMAGENET_STD) / 3,))
    for name in ("camera", "coffee"):
        array = preprocess.array(photos[name])
        assert array.shape == (1, 224, 224)
        np.testing.assert_allclose(array, _torchvision(preprocess, photos[name].convert("L")), atol=1e-6)


def test_other_channels_cannot_come_from_files(photos: dict[str, Image.Image]) -> None:
    preprocess = Preprocess.for_arch(replace(ARCHS["fbnetv3_a"], in_channels=4))
    with pytest.raises(ZooError, match="this network takes 4 channels; image files can only fill 1 or 3"):
        preprocess.array(photos["coffee"])


@pytest.mark.parametrize("name", ARCHS)
def test_published_networks_have_their_own_resize(name: str) -> None:
    preprocess, published = Preprocess.for_arch(ARCHS[name]), PUBLISHED.get(name)
    resize = published.resize if published and published.resize else ARCHS[name].resolution
    assert preprocess == Preprocess(resize, ARCHS[name].resolution)
    assert (preprocess.mean, preprocess.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert preprocess.interpolation is Interpolation.BILINEAR


def test_at_another_resolution_nothing_is_cut_off() -> None:
    assert Preprocess.for_arch(replace(ARCHS["fbnetv3_a"], resolution=160)) == Preprocess(160, 160)
    assert Preprocess.for_arch(ARCHS["fbnetv3_a"].for_small_images()) == Preprocess(32, 32)


def test_thin_images_cannot_fill_the_memory() -> None:
    image = Image.new("RGB", (200_000, 1))  # 145 GB, resized
    with pytest.raises(ZooError) as caught:
        Preprocess(500, 224).array(image)
    text = "an image of 200000 x 1 pixels is 100000000 x 500 when resized; crop it first"
    assert str(caught.value) == text


def test_images_are_left_as_they_were(photos: dict[str, Image.Image]) -> None:
    image = photos["coffee"].copy()
    batch = stack(Preprocess(64, 48), [image, photos["camera"]])
    assert batch.shape == (2, 3, 48, 48)
    assert image == photos["coffee"]


def _pixels(image: Image.Image) -> Tensor:
    """The uint8 tensor (channels, height, width) of an image."""
    return v2.functional.pil_to_tensor(image)


def _levels_apart(preprocess: Preprocess, tensor: Tensor, image: Image.Image) -> Tensor:
    """By how many gray levels the network's inputs of a tensor and of a Pillow image differ."""
    std = torch.tensor(preprocess.std)[:, None, None]
    return (preprocess(tensor) - preprocess(image)).abs() * std * 255


GRAY = {"mean": (0.45,), "std": (0.22,)}
PHOTOS = ["astronaut", "coffee", "chelsea", "rocket", "camera"]


@pytest.mark.parametrize("network", [{}, GRAY], ids=["rgb", "gray"])
@pytest.mark.parametrize("sides", [(224, 224), (242, 224), (260, 224), (300, 299), (64, 48)], ids=str)
@pytest.mark.parametrize("interpolation", Interpolation)
@pytest.mark.parametrize("name", PHOTOS)
def test_tensors_and_pillow_images_agree(
    photos: dict[str, Image.Image],
    name: str,
    interpolation: Interpolation,
    sides: tuple[int, int],
    network: dict[str, tuple[float, ...]],
) -> None:
    """Measured: uint8 tensors differ by at most 1 level, in 1.4 % of the values (0.13 % on average), floats by 1.5.

    With the nearest pixel, uint8 tensors do not differ at all; bfloat16 brings an error of its own.
    """
    preprocess, image = Preprocess(*sides, interpolation, **network), photos[name]  # type: ignore[arg-type]
    apart = _levels_apart(preprocess, _pixels(image), image)
    if interpolation is Interpolation.NEAREST:
        assert not apart.any()
    assert apart.max() < 1.001
    assert (apart > 0.5).float().mean() < 0.02
    for dtype in (torch.float32, torch.float64, torch.float16):
        assert _levels_apart(preprocess, (_pixels(image) / 255).to(dtype), image).max() < 1.6
    assert _levels_apart(preprocess, (_pixels(image) / 255).bfloat16(), image).max() < 2


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("interpolation", Interpolation)
@pytest.mark.parametrize("resize", [224, 242, 231])
def test_tensors_of_any_size(
    photos: dict[str, Image.Image], size: tuple[int, int], interpolation: Interpolation, resize: int
) -> None:
    """Pillow 13 resizes some upright images first along the height, others always along the width: 2 levels, 13 %."""
    preprocess = Preprocess(resize, 224, interpolation)
    image = photos["astronaut"].crop((100, 50, 500, 400)).resize(size)
    apart = _levels_apart(preprocess, _pixels(image), image)
    upright = size[0] < size[1]
    assert apart.max() < (0.001 if interpolation is Interpolation.NEAREST else 2.001 if upright else 1.001)
    assert (apart > 0.5).float().mean() < (0.15 if upright else 0.02)
    assert _levels_apart(preprocess, _pixels(image) / 255, image).max() < (2.5 if upright else 1.6)


@pytest.mark.parametrize("interpolation", Interpolation)
def test_hard_edges_overshoot_as_in_pillow(interpolation: Interpolation) -> None:
    noise = np.random.default_rng(0).integers(0, 2, (40, 60, 3), dtype=np.uint8) * 255
    preprocess, image = Preprocess(97, 90, interpolation), Image.fromarray(noise)
    assert _levels_apart(preprocess, _pixels(image), image).max() < 1.001
    assert _levels_apart(preprocess, _pixels(image) / 255, image).max() < 1.6


def test_every_color_gets_pillows_gray() -> None:
    colors = Image.fromarray(np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8))
    assert not _levels_apart(Preprocess(1024, 1024, **GRAY), _pixels(colors), colors).any()  # type: ignore[arg-type]


def test_one_channel_fills_three(photos: dict[str, Image.Image]) -> None:
    preprocess, camera = Preprocess(64, 48), photos["camera"]
    assert torch.equal(preprocess(_pixels(camera)), preprocess(_pixels(camera.convert("RGB"))))


def test_a_network_of_other_channels_takes_tensors() -> None:
    mean, std = (0.1, 0.2, 0.3, 0.4, 0.5), (1.0, 2.0, 3.0, 4.0, 5.0)
    pixels = torch.randint(256, (5, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    statistics = torch.tensor([mean, std])[..., None, None]
    expected = (pixels / 255 - statistics[0]) / statistics[1]
    torch.testing.assert_close(Preprocess(8, 8, mean=mean, std=std)(pixels), expected, rtol=0, atol=1e-6)


def test_one_image_or_many(photos: dict[str, Image.Image]) -> None:
    """Whatever is given, the answer is that for each image alone; lists take images of different sizes."""
    preprocess = Preprocess(64, 48)
    images = [photos[name] for name in ("coffee", "camera", "astronaut")]
    alone = [preprocess(image) for image in images]
    for image, tensor in zip(images, alone, strict=True):
        assert (tensor.shape, tensor.dtype) == ((3, 48, 48), torch.float32)
        assert np.array_equal(tensor.numpy(), preprocess.array(image))
    assert torch.equal(preprocess(images), torch.stack(alone))
    assert torch.equal(preprocess(tuple(images[:1])), alone[0][None])
    for tensors in ([_pixels(image) for image in images], [_pixels(image) / 255 for image in images]):
        expected = [preprocess(tensor) for tensor in tensors]
        assert [tensor.shape for tensor in expected] == [(3, 48, 48)] * 3
        assert torch.equal(preprocess(tensors), torch.stack(expected))
        assert torch.equal(preprocess(tuple(tensors)), torch.stack(expected))
        cut = [tensor[:, :200, :300] for tensor in (tensors[0], tensors[2])]
        batch = preprocess(torch.stack(cut))
        assert (batch.shape, batch.dtype) == ((2, 3, 48, 48), torch.float32)
        torch.testing.assert_close(batch, torch.stack([preprocess(tensor) for tensor in cut]), rtol=0, atol=1e-6)
        assert preprocess(torch.stack(cut)[:1]).shape == (1, 3, 48, 48)


def test_tensors_are_left_as_they_were(photos: dict[str, Image.Image]) -> None:
    for pixels in (_pixels(photos["coffee"]), _pixels(photos["coffee"]) / 255):
        before = pixels.clone()
        for side in (400, 48):
            Preprocess(side, side)(pixels).zero_()
        assert torch.equal(pixels, before)


def test_answers_are_plain_contiguous_tensors(photos: dict[str, Image.Image]) -> None:
    last = torch.from_numpy(np.array(photos["coffee"]))
    for image in (tv_tensors.Image(photos["coffee"]), last.permute(2, 0, 1), last[None].permute(0, 3, 1, 2)):
        for preprocess in (Preprocess(64, 48), Preprocess(400, 400)):
            found = preprocess(image)
            assert type(found) is Tensor
            assert found.is_contiguous()
            assert torch.equal(found.reshape(preprocess(photos["coffee"]).shape), preprocess(_pixels(photos["coffee"])))


@pytest.mark.parametrize("interpolation", Interpolation)
def test_tensors_stay_on_their_device(interpolation: Interpolation) -> None:
    for network in ({}, GRAY):
        image = torch.zeros(3, 50, 60, dtype=torch.uint8, device="meta")
        found = Preprocess(40, 32, interpolation, **network)([image, image])  # type: ignore[arg-type]
        assert (found.device.type, found.shape) == ("meta", (2, len(network.get("mean", "rgb")), 32, 32))


def test_gradients_reach_the_pixels(photos: dict[str, Image.Image]) -> None:
    pixels = (_pixels(photos["coffee"]) / 255).requires_grad_()
    Preprocess(64, 64)(pixels).sum().backward()
    assert pixels.grad is not None
    assert (pixels.grad[:, :, 200:400] > 0).float().mean() > 0.9


def test_rounding_errors_of_floating_tensors_are_clamped() -> None:
    edges = torch.tensor([-1e-3, 0, 1, 1 + 1e-3]).expand(3, 4, 4)
    assert torch.equal(Preprocess(4, 4)(edges), Preprocess(4, 4)(edges.clamp(0, 1)))


def _seen(image: Image.Image, mode: str = "RGB") -> Pixels:
    """The 8-bit pixels that a network sees of a small image, none of them resized away."""
    statistics = {"mean": (0.5,), "std": (0.5,)} if mode == "L" else {}
    side = min(image.size)
    cropped = Preprocess(side, side, **statistics).crop(image)  # type: ignore[arg-type]
    assert cropped.mode == mode
    return np.asarray(cropped)


GRAYS = np.arange(16, dtype=np.uint8).reshape(4, 4) * 17


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16", "I"])
def test_every_mode_shows_the_same_grays(tmp_path: Path, mode: str) -> None:
    grays = np.where(GRAYS > 127, 255, 0).astype(np.uint8) if mode == "1" else GRAYS
    if mode in ("I;16", "I"):
        image = Image.fromarray(grays.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(grays).convert(mode)
    path = tmp_path / ("image.tif" if mode in ("CMYK", "I") else "image.png")
    image.convert(mode).save(path)
    back = read_image(path)
    assert back.mode == mode
    assert (_seen(back) == grays[..., None]).all()
    assert (_seen(back, "L") == grays).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_lies_over_white(mode: str) -> None:
    alpha = np.array([[0, 128], [255, 64]], dtype=np.uint8)
    gray = Image.new("L", (2, 2), 60)
    color = {"RGBA": [gray] * 3, "LA": [gray], "PA": [gray.convert("P")]}[mode]
    image = Image.merge(mode, [*color, Image.fromarray(alpha)])
    expected = 60 * (alpha / 255) + 255 * (1 - alpha / 255)
    np.testing.assert_allclose(_seen(image), np.repeat(expected[..., None], 3, 2), atol=1)
    np.testing.assert_allclose(_seen(image, "L"), expected, atol=1)


@pytest.mark.parametrize(
    ("depth", "color", "pixels", "transparent"),
    [
        (8, 0, struct.pack("4B", 0, 100, 200, 255), struct.pack(">H", 100)),
        (16, 0, struct.pack(">4H", 0, 25700, 51400, 65535), struct.pack(">H", 25700)),
        (8, 2, bytes(v for v in (0, 100, 200, 255) for _ in range(3)), struct.pack(">3H", 100, 100, 100)),
        (8, 3, bytes(range(4)), bytes((255, 0, 255, 255))),
    ],
    ids=["gray", "gray16", "rgb", "palette"],
)
def test_a_transparent_color_is_white(
    tmp_path: Path, depth: int, color: int, pixels: bytes, transparent: bytes
) -> None:
    palette = bytes(v for v in (0, 100, 200, 255) for _ in range(3))
    chunks = [(b"PLTE", palette)] if color == 3 else []
    path = _png(tmp_path, (4, 4), depth, color, (b"\0" + pixels) * 4, [*chunks, (b"tRNS", transparent)])
    assert (_seen(read_image(path))[:, :, 0] == (0, 255, 200, 255)).all()
    assert (_seen(read_image(path), "L") == (0, 255, 200, 255)).all()


def _png(
    folder: Path, size: tuple[int, int], depth: int, color: int, raw: bytes, chunks: list[tuple[bytes, bytes]]
) -> Path:
    """A PNG file written by hand: ``raw`` are its filtered rows."""
    header = struct.pack(">IIBBBBB", *size, depth, color, 0, 0, 0)
    every = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    blocks = [struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in every]
    path = folder / "hand.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(blocks))
    return path


UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {  # from the stored pixels to the ones to be seen, by EXIF number
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored.swapaxes(0, 1), 2),
    8: lambda stored: np.rot90(stored, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_photographs_stand_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    stored = np.zeros((32, 64, 3), dtype=np.uint8)
    stored[:16, :32], stored[:16, 32:], stored[16:, :32] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"photo.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {"quality": 100, "subsampling": 0} if suffix == "jpg" else {}
    Image.fromarray(stored).save(path, exif=exif, **options)
    seen = np.asarray(read_image(path)).astype(int)
    expected = UPRIGHT[orientation](stored)
    assert seen.shape == expected.shape
    assert np.abs(seen - expected).max() <= 6


@pytest.mark.parametrize("suffix", ["bmp", "gif", "jpg", "png", "tif", "webp"])
def test_usual_formats(tmp_path: Path, photos: dict[str, Image.Image], suffix: str) -> None:
    path = tmp_path / f"photo.{suffix}"
    photos["chelsea"].save(path)
    mean = np.asarray(photos["chelsea"]).astype(float).mean()
    assert np.asarray(read_image(path).convert("RGB")).astype(float).mean() == pytest.approx(mean, abs=2)


def _refusal(path: Path) -> str:
    with pytest.raises(ZooError) as caught:
        read_image(path)
    return str(caught.value)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    assert _refusal(tmp_path / "gone.png") == f"{tmp_path / 'gone.png'}: no such file"
    assert _refusal(tmp_path) == f"{tmp_path}: is a folder; name image files"


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"just text\n" * 100], ids=["empty", "start", "text"])
def test_files_that_are_no_images(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(content)
    assert _refusal(path).startswith(f"{path}: cannot be read as an image (")
    assert "\n" not in _refusal(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.95])
def test_truncated_files(tmp_path: Path, photos: dict[str, Image.Image], suffix: str, part: float) -> None:
    path = tmp_path / f"photo.{suffix}"
    photos["coffee"].save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    assert _refusal(path).startswith(f"{path}: cannot be read as an image (")


def test_a_damaged_orientation_does_not_hide_the_picture(tmp_path: Path, photos: dict[str, Image.Image]) -> None:
    path = tmp_path / "photo.jpg"
    photos["coffee"].save(path, exif=b"Exif\0\0rubbish")
    assert read_image(path).size == photos["coffee"].size


@pytest.mark.parametrize("side", [13_378, 50_000, 2**31 - 1])
def test_decompression_bombs(tmp_path: Path, side: int) -> None:
    path = _png(tmp_path, (side, side), 1, 0, b"", [])
    assert _refusal(path) == f"{path}: over the limit of 178,956,970 pixels; shrink it"


def test_large_images_below_the_limit(tmp_path: Path) -> None:
    path = _png(tmp_path, (9_500, 9_500), 1, 0, (b"\0" + bytes(9_500 // 8 + 1)) * 9_500, [])
    assert read_image(path).size == (9_500, 9_500)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda: Preprocess(200, 224), "Preprocess.resize is 200; it must be at least the resolution, 224"),
        (lambda: Preprocess(224, 0), "Preprocess.resolution is 0; it must be a whole number of at least 1"),
        (lambda: Preprocess(8, 8, mean=(0.5,)), "Preprocess.mean has 1 values and std 3; give one per channel"),
        (lambda: Preprocess(8, 8, std=(1, 0, 1)), "Preprocess.std is 0; it must be a number above 0"),
    ],
)
def test_wrong_values_are_refused(wrong: Callable[[], object], text: str) -> None:
    with pytest.raises(ZooError) as caught:
        wrong()
    assert str(caught.value) == text


def test_damaged_exif_does_not_make_a_picture_bad(tmp_path: Path) -> None:
    path, exif = tmp_path / "photo.jpg", Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20), "red").save(path, exif=exif)
    sound = path.read_bytes()
    assert read_image(path).size == (20, 40)
    for part, damage in ((b"Exif\0\0MM", b"Exif\0\0XX"), (b"\x01\x12\0\x03", b"\x01\x12\0\x02")):  # a text for a number
        assert part in sound
        path.write_bytes(sound.replace(part, damage))
        assert read_image(path).size == (40, 20)


def test_files_that_other_programs_would_read_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "page.jpg"
    Image.new("RGB", (8, 8)).save(path, format="EPS")
    told = refusal(lambda: read_image(path))
    assert told == f"{path}: cannot be read as an image (none of {', '.join(FORMATS)})"
