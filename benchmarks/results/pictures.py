"""Draw the pictures of results.md from docs/rows/paper: `python -m benchmarks.results.pictures`.

`historyad reproduce WHAT` writes the rows; at full size where they are there, else at quick size.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from benchmarks.pages import PICTURES, ROWS, Row
from benchmarks.results.figures import by_preset
from historyad.files import read_rows
from historyad.research.reproduce.drawing import draw_figure
from historyad.research.reproduce.everything import FIGURES

LARGEST = 150_000  # bytes of a picture


def main() -> None:
    """Draw every figure that has rows."""
    for name, figure in FIGURES.items():
        rows = read_rows(ROWS / "paper" / f"{name}.jsonl")
        if not rows:
            continue
        full = [row for row in rows if row["size"] == "full"]
        # A picture is of one preset: of today's, unless more was measured before.
        today, before = by_preset(full or rows)
        shown = today if _what(today) >= _what(before) else before
        with TemporaryDirectory() as folder:
            draw_figure(figure.draw, shown, Path(folder) / name)
            with Image.open(Path(folder) / f"{name}.png") as picture:
                save_webp(picture, PICTURES / f"paper-{name}.webp")


def _what(rows: list[Row]) -> set[tuple[object, ...]]:
    """Return what was measured, with whatever seeds."""
    return {(row.get("method"), row.get("digit"), row.get("split")) for row in rows}


def save_webp(picture: Image.Image, path: Path) -> None:
    """Write a WebP that is as good as the size allows."""
    for quality in range(90, 20, -10):
        packed = BytesIO()
        picture.convert("RGB").save(packed, "WEBP", quality=quality, method=6)
        if packed.tell() <= LARGEST:
            break
    path.write_bytes(packed.getvalue())


if __name__ == "__main__":
    main()
