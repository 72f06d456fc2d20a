"""The page in a real browser: it answers as ONNX Runtime does in Python, alone with its own folder, for everyone."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import browser
import numpy as np
import numpy.typing as npt
import onnx
import pytest
import skimage.data
import torch
from browser import AXE, FAKE_CAMERA, Visit, plainly_served, served, visit
from networks import SHORT
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from PIL import Image

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.classify import Classifier
from fbnetv3_zoo.export import export_onnx
from fbnetv3_zoo.export.web import write_web
from fbnetv3_zoo.export.web.ort_web import package_files
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.preprocess import Interpolation, Preprocess, read_image
from fbnetv3_zoo.training.data import digits

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Playwright

PHOTOS = ("astronaut", "coffee", "chelsea", "rocket", "retina")
TENSOR = """async ([files, preprocess]) => {
  const { decode, pixelsOf } = await import(new URL("picture.js", document.baseURI));
  const { tensorOf } = await import(new URL("preprocess.js", document.baseURI));
  const tensors = [];
  for (const file of files) {
    const blob = new Blob([Uint8Array.from(atob(file), (letter) => letter.charCodeAt(0))]);
    const bytes = new Uint8Array(tensorOf(pixelsOf(await decode(blob)), preprocess).buffer);
    tensors.push(btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join("")));
  }
  return tensors;
}"""
HAND_OVER = """async ([kind, name, file]) => {
  const bytes = Uint8Array.from(atob(file), (letter) => letter.charCodeAt(0));
  const given = new DataTransfer();
  given.items.add(new File([bytes], name, { type: "image/png" }));
  const event = kind === "paste"
    ? new ClipboardEvent("paste", { clipboardData: given, bubbles: true })
    : new DragEvent("drop", { dataTransfer: given, bubbles: true, cancelable: true });
  document.getElementById("stage").dispatchEvent(event);
}"""


@dataclass(frozen=True)
class Site:
    """A page, the model file it was made of, and images for it."""

    folder: Path
    model: Path
    images: tuple[Path, ...]
    kernels: bool = True

    def expected(self) -> npt.NDArray[np.float64]:
        """The probabilities that ONNX Runtime gives in Python, a row an image.

        Without ``kernels`` it computes the graph node by node as written: its int8 kernels for x86 processors without
        VNNI add up in 16 bits, and end at the largest number where weights use all 8.
        """
        classifier = Classifier.open(self.model)
        if not self.kernels:
            options = SessionOptions()
            options.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
            session = InferenceSession(self.model, options)
            name = session.get_inputs()[0].name
            classifier = Classifier(classifier.description, lambda images: _one_by_one(session, name, images))
        names = [classifier.description.name_of(n) for n in range(classifier.description.arch.num_classes)]
        answers = classifier([read_image(path) for path in self.images], top=len(names))
        told = [{guess.name: guess.probability for guess in answer} for answer in answers]
        return np.array([[answer[name] for name in names] for answer in told])


def _one_by_one(session: InferenceSession, name: str, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.concatenate([session.run(None, {name: image[None]})[0] for image in images])


class _Photos(CalibrationDataReader):
    def __init__(self, preprocess: Preprocess, images: tuple[Path, ...]) -> None:
        self._batches = ({"images": preprocess.array(read_image(path))[None]} for path in images)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._batches, None)


def seeing(arch: Arch) -> FBNet:
    """A network of random filters whose ten answers to photographs are far from equal, and differ."""
    model = FBNet(arch, generator=torch.Generator().manual_seed(0))
    model.preprocess = Preprocess(40, arch.resolution, Interpolation.BICUBIC)
    model.class_names = ("zero", "één", "две", "三", "<b>four</b>", "five", "six", "seven", "eight", "nine & more")
    photos = [Image.fromarray(getattr(skimage.data, name)()) for name in PHOTOS]
    _answer(model, model.preprocess(photos), 4 * torch.eye(10)[:5])
    return model


def reading(arch: Arch) -> FBNet:
    """A network of random filters that knows most of the digits."""
    data = digits()
    model = FBNet(replace(arch, in_channels=1), generator=torch.Generator().manual_seed(0))
    model.preprocess = Preprocess(arch.resolution, arch.resolution, mean=data.mean, std=data.std)
    model.class_names = data.class_names
    seen = data["train"][:500]
    _answer(model, model.preprocess([one.read() for one in seen]), 8 * torch.eye(10)[[one.label for one in seen]])
    return model


def _answer(model: FBNet, images: torch.Tensor, wanted: torch.Tensor) -> None:
    """Fit the classifier to give about the logits ``wanted``, by weights small enough to keep rounding errors small."""
    seen: list[torch.Tensor] = []
    hook = model.classifier.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        for _ in range(50):
            model(images[:64])  # the norms' statistics
        model.eval()(images)
        features = seen[-1] - seen[-1].mean(0)
        ridge = 0.01 * features.square().sum() / features.shape[1] * torch.eye(features.shape[1])
        model.classifier.weight.copy_(torch.linalg.solve(features.T @ features + ridge, features.T @ wanted).T)
        model.classifier.bias.copy_((wanted - seen[-1] @ model.classifier.weight.T).mean(0))
    hook.remove()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def numbers(home: Path) -> Site:
    """Ten handwritten digits, with samples."""
    images = []
    for number, example in enumerate(digits()["test"][::18][:12]):
        images.append(home / f"digit {number}.png")
        example.read().save(images[-1])
    model = home / "numbers.onnx"
    export_onnx(reading(SHORT), model, batch_sizes=[1])
    write_web(model, home / "numbers", samples=images[:3], license="CC0-1.0", source="a test")
    return Site(home / "numbers", model, tuple(images))


@pytest.fixture(scope="module")
def photos(home: Path) -> Site:
    """Photographs in color, and parts of them: PNG, so that they decode to the same pixels everywhere."""
    images = []
    rng = np.random.default_rng(0)
    for number in range(12):
        photo = Image.fromarray(getattr(skimage.data, PHOTOS[number % 5])())
        if number >= 5:
            left, top = (int(rng.integers(100)) for _ in range(2))
            photo = photo.crop((left, top, left + int(rng.integers(60, 300)), top + int(rng.integers(60, 300))))
        images.append(home / f"photo-{number}.png")
        photo.save(images[-1], compress_level=1)
    model = home / "photos.onnx"
    export_onnx(seeing(SHORT), model, batch_sizes=[1])
    write_web(model, home / "photos")
    return Site(home / "photos", model, tuple(images))


@pytest.fixture(scope="module")
def int8(photos: Site, home: Path) -> Site:
    """The same, quantized: weights and activations in 8 bits."""
    model, float32 = home / "int8.onnx", onnx.load(photos.model)
    preprocess = Classifier.open(photos.model).description.preprocess
    quantize_static(
        photos.model, model, _Photos(preprocess, photos.images), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QInt8,
    )  # fmt: skip
    quantized = onnx.load(model)
    del quantized.metadata_props[:]
    quantized.metadata_props.extend(float32.metadata_props)
    onnx.save(quantized, model)
    write_web(model, home / "int8")
    return Site(home / "int8", model, photos.images, kernels=False)


@pytest.fixture(scope="module")
def driver() -> Iterator[Playwright]:
    with browser.playwright() as driver:
        yield driver


@pytest.fixture(scope="module")
def context(driver: Playwright) -> Iterator[BrowserContext]:
    with browser.browser(driver, *FAKE_CAMERA) as context:
        yield context


@pytest.fixture(scope="module")
def workshop(numbers: Site, context: BrowserContext) -> Iterator[Visit]:
    """A page whose modules the tests of preprocessing call."""
    with served(numbers.folder) as address, visit(context, address) as seen:
        yield seen


@pytest.fixture
def opened(numbers: Site, context: BrowserContext) -> Iterator[Visit]:
    """The page of the digits, loaded. In the end it has complained of nothing and asked nobody else."""
    with served(numbers.folder) as address, visit(context, address) as seen:
        seen.ready()
        yield seen
        assert (seen.complaints, seen.elsewhere) == ([], [])


def _percent(probability: float) -> str:
    return f"{100 * probability:.1f}\xa0%"


@pytest.mark.parametrize(
    ("kind", "threads"),
    [
        ("numbers", "not isolated"),
        ("photos", "alone in its process"),
        ("int8", "alone in its process"),
        pytest.param("numbers", "alone in its process", marks=pytest.mark.long),
        pytest.param("photos", "not isolated", marks=pytest.mark.long),
        pytest.param("int8", "not isolated", marks=pytest.mark.long),
    ],
)
def test_it_answers_as_python_does(
    kind: str, threads: str, context: BrowserContext, request: pytest.FixtureRequest
) -> None:
    site: Site = request.getfixturevalue(kind)
    expected = site.expected()
    assert len(set(expected.argmax(1))) > 3
    isolated = threads == "alone in its process"
    with (served if isolated else plainly_served)(site.folder) as address, visit(context, address) as seen:
        seen.ready()
        assert seen.page.evaluate("crossOriginIsolated") is isolated
        context.set_offline(True)
        try:
            found = np.array(browser.probabilities(seen.page, site.images))
            shown = []
            for path in site.images:
                seen.choose(path)
                shown.append(seen.answer())
        finally:
            context.set_offline(False)
        count = min(4, seen.page.evaluate("navigator.hardwareConcurrency")) if isolated else 1
        told = seen.text("timing")
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-9)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    assert found.argmax(1).tolist() == expected.argmax(1).tolist()
    names = Classifier.open(site.model).description.class_names
    assert names is not None
    for row, answer in zip(found, shown, strict=True):
        best = np.argsort(-row, kind="stable")[:5]
        assert answer == [(names[n], _percent(row[n])) for n in best]
    assert told.endswith(f"(median of the last 9 runs; {count}\xa0{'thread' if count == 1 else 'threads'})")
    assert (seen.complaints, seen.elsewhere) == ([], [])


def _png(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode()


def _tensors(seen: Visit, images: list[str], preprocess: Preprocess) -> list[npt.NDArray[np.float32]]:
    """What the page makes of image files, given in base64."""
    value = {
        "resize": preprocess.resize, "resolution": preprocess.resolution, "mean": preprocess.mean,
        "std": preprocess.std, "interpolation": preprocess.interpolation.value,
    }  # fmt: skip
    made = seen.page.evaluate(TENSOR, [images, value])
    shape = (len(preprocess.mean), preprocess.resolution, preprocess.resolution)
    return [np.frombuffer(base64.b64decode(tensor), dtype=np.float32).reshape(shape) for tensor in made]


# Wide, upright, square; smaller and larger than what is made of them; shapes at the edge of Pillow's rule for upright
# ones.
SIZES = [(40, 40), (97, 31), (31, 97), (33, 66), (60, 121), (60, 120), (61, 199), (7, 5), (1, 9), (201, 111),
         (111, 207), (3, 41)]  # fmt: skip


@pytest.mark.parametrize("interpolation", Interpolation)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sides", [(40, 32), (41, 32), (40, 40), (33, 16)])
def test_opaque_images_become_pillows_very_levels(
    sides: tuple[int, int], channels: int, interpolation: Interpolation, workshop: Visit
) -> None:
    preprocess = replace(Preprocess(*sides, interpolation), std=(0.3, 0.2, 0.1)).for_channels(channels)
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in SIZES]
    images += [image.convert("L") for image in images[:4]] + [image.quantize(16) for image in images[:2]]
    found = _tensors(workshop, [_png(image) for image in images], preprocess)
    for image, tensor in zip(images, found, strict=True):
        np.testing.assert_array_equal(tensor, preprocess.array(image), err_msg=f"{image.size} {image.mode}")


@pytest.mark.parametrize("size", [(1200, 930), (500, 1607)])
def test_images_of_many_pixels_are_read_in_parts(size: tuple[int, int], workshop: Visit) -> None:
    preprocess = Preprocess(64, 60, Interpolation.BICUBIC)
    corner = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    image = corner.resize(size, Image.Resampling.LANCZOS)
    (tensor,) = _tensors(workshop, [_png(image)], preprocess)
    np.testing.assert_array_equal(tensor, preprocess.array(image))


@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_images_come_within_a_level(channels: int, workshop: Visit) -> None:
    preprocess = Preprocess(40, 32, Interpolation.BICUBIC).for_channels(channels)
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (5, 5, 4), dtype=np.uint8)).resize((90, 70), Image.Resampling.BICUBIC)
    images = [smooth, smooth.convert("LA"), Image.fromarray(rng.integers(0, 256, (60, 80, 4), dtype=np.uint8))]
    exact = replace(preprocess, resize=70, resolution=64)  # the first two are not resized, only blended
    for given in (preprocess, exact):
        found = _tensors(workshop, [_png(image) for image in images[:2]], given)
        for image, tensor in zip(images, found, strict=False):
            apart = np.abs(tensor - given.array(image)) * 255 * np.array(given.std)[:, None, None]
            assert apart.max() < 1.001
    (noise,) = _tensors(workshop, [_png(images[2])], preprocess)
    apart = np.abs(noise - preprocess.array(images[2])) * 255 * np.array(preprocess.std)[:, None, None]
    assert apart.max() < 1.001


def test_photographs_lie_as_their_exif_says(workshop: Visit, photos: Site) -> None:
    preprocess = Preprocess(40, 32)
    for orientation in range(1, 9):
        file, exif = io.BytesIO(), Image.Exif()
        exif[0x0112] = orientation
        read_image(photos.images[3]).save(file, "PNG", exif=exif, compress_level=1)
        path = photos.folder.parent / "turned.png"
        path.write_bytes(file.getvalue())
        (tensor,) = _tensors(workshop, [base64.b64encode(file.getvalue()).decode()], preprocess)
        np.testing.assert_array_equal(tensor, preprocess.array(read_image(path)), err_msg=str(orientation))


def test_profiles_change_nothing(workshop: Visit, photos: Site) -> None:
    """Colors are the numbers in the file, as in Python, whatever a color profile would make of them."""
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    image, file = read_image(photos.images[0]), io.BytesIO()
    image.save(file, "PNG", icc_profile=profile, compress_level=1)
    (tensor,) = _tensors(workshop, [base64.b64encode(file.getvalue()).decode()], Preprocess(40, 32))
    np.testing.assert_array_equal(tensor, Preprocess(40, 32).array(image))


def test_jpeg_comes_close(workshop: Visit, photos: Site) -> None:
    """Decoders of JPEG differ a little."""
    file = io.BytesIO()
    read_image(photos.images[0]).save(file, "JPEG", quality=90)
    (tensor,) = _tensors(workshop, [base64.b64encode(file.getvalue()).decode()], Preprocess(40, 32))
    path = photos.folder.parent / "photo.jpg"
    path.write_bytes(file.getvalue())
    apart = (
        np.abs(tensor - Preprocess(40, 32).array(read_image(path)))
        * 255
        * np.array(Preprocess(40, 32).std)[:, None, None]
    )
    assert apart.max() < 2.001


def test_the_card(opened: Visit, numbers: Site) -> None:
    size = numbers.model.stat().st_size / 1e6
    facts = f"short · 10 classes · {size:.1f} MB · float32 · license of the weights: CC0-1.0 · weights: a test"
    assert opened.text("card") == facts
    assert opened.page.title() == "short · Image classifier"
    assert not opened.page.locator("#unstarted").count()


def test_names_are_text(photos: Site, int8: Site, context: BrowserContext) -> None:
    with served(int8.folder) as address, visit(context, address) as seen:
        seen.ready()
        assert " · int8" in seen.text("card")
        seen.choose(photos.images[0])
        assert seen.page.locator("#answer b").count() == 0


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (360, "dark"),
        (1280, "light"),
        pytest.param(360, "light", marks=pytest.mark.long),
        pytest.param(1280, "dark", marks=pytest.mark.long),
    ],
)
def test_nothing_keeps_anyone_out(width: int, scheme: Any, opened: Visit, numbers: Site) -> None:
    """axe-core finds nothing to complain of, before an answer, with one, and with an error; and nothing is cut off."""
    script = package_files(AXE)["axe.min.js"].decode()
    opened.page.set_viewport_size({"width": width, "height": 800})
    opened.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    opened.page.evaluate(f"(() => {{ {script} }})()")
    for state in ("empty", "answer", "error"):
        if state == "answer":
            opened.choose(numbers.images[0])
        if state == "error":
            opened.page.set_input_files("#file", numbers.model)
            opened.wait("document.getElementById('error').textContent !== ''")
        found = opened.page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
        assert len(found["passes"]) > 15
        told = [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]]
        assert told == [], state
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_keyboard_is_enough(opened: Visit, numbers: Site) -> None:
    focused = "document.activeElement.textContent.trim()"
    keyboard, reached = opened.page.keyboard, []
    for _ in range(5):
        keyboard.press("Tab")
        reached.append(opened.page.evaluate(focused))
        outline = opened.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
    assert reached == ["Choose image", "Start camera", "digit 0", "digit 1", "digit 2"]
    assert opened.page.locator("#status").get_attribute("role") == "status"
    keyboard.press("Enter")
    opened.answered()
    (name, share), *_ = opened.answer()
    assert opened.text("status") == f"Most probable: {name}, {share}"
    expected = numbers.expected()[2]
    assert (name, share) == (str(expected.argmax()), _percent(expected.max()))
    for _ in range(4):
        keyboard.press("Shift+Tab")
    assert opened.page.evaluate(focused) == "Choose image"
    opened.page.evaluate(ASKED)
    keyboard.press("Space")
    opened.wait("document.getElementById('file').dataset.asked === 'yes'")
    opened.choose(numbers.images[1])
    assert opened.answer()[0][0] == str(numbers.expected()[1].argmax())


ASKED = """() => document.getElementById("file").addEventListener("click", (event) => {
  event.preventDefault();  // no dialog: browsers show one only if the key was pressed moments ago, busy or not
  event.target.dataset.asked = "yes";
})"""
"""Notes that the page asks for a file."""


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_images_can_be_handed_over(kind: str, opened: Visit, numbers: Site) -> None:
    expected = numbers.expected()
    for number in (5, 6):
        content = base64.b64encode(numbers.images[number].read_bytes()).decode()
        opened.page.evaluate("document.getElementById('status').textContent = ''")
        opened.page.evaluate(HAND_OVER, [kind, f"{number}.png", content])
        opened.answered()
        assert opened.answer()[0] == (str(expected[number].argmax()), _percent(expected[number].max()))
        assert opened.page.locator("#picture").get_attribute("alt") == f"{number}.png"


def test_what_is_no_image(opened: Visit, numbers: Site, tmp_path: Path) -> None:
    opened.choose(numbers.images[0])
    whole = numbers.images[0].read_bytes()
    for name, content in {
        "notes.png": b"no image",
        "half.png": whole[: len(whole) // 2][:40],
        "empty.jpg": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        opened.page.set_input_files("#file", tmp_path / name)
        sentence = f"{name} is not an image that this browser can read; try a PNG, JPEG or WebP file."
        opened.wait(f"document.getElementById('error').textContent === {json.dumps(sentence)}")
        assert (opened.text("status"), opened.answer()) == ("", [])
    opened.choose(numbers.images[0])
    assert opened.text("error") == ""


def test_what_is_too_large(opened: Visit, tmp_path: Path) -> None:
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(100_000_001)
    Image.new("1", (12_000, 9_000)).save(tmp_path / "wide.png")
    for name, limit in (("huge.png", "100 MB"), ("wide.png", "100 million pixels")):
        opened.page.set_input_files("#file", tmp_path / name)
        sentence = f"{name} is too large: over {limit}; make it smaller first."
        opened.wait(f"document.getElementById('error').textContent === {json.dumps(sentence)}")


def test_the_camera(opened: Visit) -> None:
    opened.page.click("#camera")
    opened.wait("document.getElementById('status').textContent.startsWith('The camera sees: ')")
    opened.wait("document.getElementById('timing').textContent.includes('last 9 runs')")
    assert len(opened.answer()) == 5
    assert opened.page.locator("#film").is_visible()
    assert opened.text("camera") == "Stop camera"
    opened.page.click("#camera")
    opened.wait("document.getElementById('film').srcObject === null")
    opened.page.wait_for_timeout(300)  # an answer that was under way is not shown any more
    assert (opened.text("status"), opened.answer(), opened.text("camera")) == ("The camera is off.", [], "Start camera")
    assert not opened.page.locator("#film").is_visible()


def test_an_image_ends_the_camera(opened: Visit, numbers: Site) -> None:
    opened.page.click("#camera")
    opened.wait("document.getElementById('status').textContent.startsWith('The camera sees: ')")
    opened.choose(numbers.images[3])
    opened.page.wait_for_timeout(300)
    assert opened.text("status").startswith("Most probable: ")
    assert opened.page.evaluate("document.getElementById('film').srcObject") is None


def test_a_camera_that_is_refused(numbers: Site, driver: Playwright) -> None:
    with (
        browser.browser(driver, "--use-fake-device-for-media-stream", "--deny-permission-prompts") as context,
        served(numbers.folder) as address,
        visit(context, address) as seen,
    ):
        seen.ready()
        seen.page.click("#camera")
        seen.wait("document.getElementById('error').textContent !== ''")
        assert seen.text("error") == "The camera was refused; allow it in the browser's settings for this page."
        assert seen.text("camera") == "Start camera"


def test_it_works_at_any_path(numbers: Site, context: BrowserContext) -> None:
    with plainly_served(numbers.folder.parent) as address, visit(context, f"{address}{numbers.folder.name}/") as seen:
        seen.ready()
        seen.page.click("text=digit 1")
        seen.answered()
        assert seen.answer()[0][0] == str(numbers.expected()[1].argmax())
        assert (seen.complaints, seen.elsewhere) == ([], [])


def test_opened_as_a_file(numbers: Site, context: BrowserContext) -> None:
    page = context.new_page()
    page.goto((numbers.folder / "index.html").as_uri())
    page.locator("#unstarted").wait_for(state="visible")
    told = " ".join((page.locator("#unstarted").text_content() or "").split())
    assert told.startswith(
        "This page has not started: open it through a web server, for instance with fbnetv3 serve-demo"
    )
    page.close()


@pytest.mark.parametrize("damage", ["missing", "short", "wrong", "card", "runtime"])
def test_a_folder_that_is_not_whole(damage: str, numbers: Site, context: BrowserContext, tmp_path: Path) -> None:
    folder = shutil.copytree(numbers.folder, tmp_path / "page")
    model, size = folder / "model.onnx", numbers.model.stat().st_size
    if damage == "missing":
        model.unlink()
    elif damage == "short":
        model.write_bytes(numbers.model.read_bytes()[:1000])
    elif damage == "wrong":
        model.write_bytes(b"\0" * size)
    elif damage == "card":
        (folder / "model.json").write_text("{")
    else:
        (folder / "runtime" / "ort.wasm.min.mjs").unlink()
    expected = {
        "missing": "model.onnx could not be loaded (404); copy the whole folder again.",
        "short": f"model.onnx has 1000 bytes, not {size}; copy the whole folder again.",
        "wrong": "The model failed to load (",
        "card": "model.json is damaged; export the page again.",
        "runtime": "The model failed to load (",
    }[damage]
    with plainly_served(folder) as address, visit(context, address) as seen:
        seen.wait("document.getElementById('error').textContent !== ''")
        assert seen.text("error").startswith(expected)
        assert seen.text("error").endswith(".")
        assert seen.text("status") == ""
        assert not seen.page.locator("#loading").is_visible()


def test_many_images_at_once(numbers: Site, driver: Playwright) -> None:
    assert (
        browser.classified_in_browser(driver, numbers.folder, numbers.images) == numbers.expected().argmax(1).tolist()
    )


def test_the_camera_gives_way_to_an_image(opened: Visit, numbers: Site) -> None:
    """An image that is chosen while the browser still asks for the camera is what is shown; two clicks are one."""
    click = "for (const id of ['camera', 'camera']) document.getElementById(id).click()"
    opened.page.evaluate(click)
    opened.choose(numbers.images[3])
    opened.page.wait_for_timeout(500)
    assert opened.text("status").startswith("Most probable: ")
    assert opened.page.evaluate("document.getElementById('film').srcObject") is None
    assert opened.text("camera") == "Start camera"
