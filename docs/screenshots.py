"""Pictures of every page of the site, to look at: ``python docs/screenshots.py FOLDER``, after ``make docs``.

Each page is shown as on a phone (390 pixels wide, light) and on a desktop (1280 pixels, dark). Long ones are cut into
columns side by side.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Literal

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))
SITE = ROOT / "build" / "site"
HEIGHT = 2200
"""Of a column, in pixels."""
SCREENS: dict[str, tuple[int, Literal["light", "dark"]]] = {"phone": (390, "light"), "desktop": (1280, "dark")}


def in_columns(page: Image.Image) -> Image.Image:
    """A tall picture, cut into columns of :data:`HEIGHT` pixels."""
    if page.height <= HEIGHT:
        return page
    sheet = Image.new("RGB", (-(-page.height // HEIGHT) * (page.width + 20), HEIGHT), "red")
    for column, top in enumerate(range(0, page.height, HEIGHT)):
        part = page.crop((0, top, page.width, min(top + HEIGHT, page.height)))
        sheet.paste(part, (column * (page.width + 20), 0))
    return sheet


def main() -> None:
    """Write ``FOLDER/SCREEN/PAGE.png``."""
    from browser import browser, plainly_served, playwright

    names = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html"))
    with playwright() as driver, plainly_served(SITE) as address, browser(driver) as context:
        page = context.new_page()
        for screen, (width, scheme) in SCREENS.items():
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            for name in names:
                page.goto(address + name, wait_until="networkidle")
                shown = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
                file = Path(sys.argv[1]) / screen / f"{name.removesuffix('.html').replace('/', '-')}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                in_columns(shown).save(file)


if __name__ == "__main__":
    main()
