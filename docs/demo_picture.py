"""Write docs/demo.svg from the real output of `ibfast demo`: `python docs/demo_picture.py`."""

import subprocess
import sys
from pathlib import Path
from xml.sax.saxutils import escape

COMMAND = ("demo", "--seconds", "10")
COLUMNS = 96
CHARACTER_PX, LINE_PX, FONT_PX, MARGIN_PX = 8, 17, 13, 14
PAGE = Path(__file__).with_name("demo.svg")


def lines_of(output: str) -> list[str]:
    """Return the lines of the picture; the closing line is broken where its figures end."""
    *lines, closing = output.rstrip().splitlines()
    broken = [""]
    for figure in closing.split(" | "):
        joined = f"{broken[-1]} | {figure}" if broken[-1] else figure
        broken[-1:] = [joined] if len(joined) <= COLUMNS else [broken[-1], figure]
    return ["$ ibfast " + " ".join(COMMAND), *lines, *broken]


def picture(output: str) -> str:
    """Return an SVG that shows the output as a terminal does."""
    lines = [line.rstrip() for line in lines_of(output)]
    width = max(map(len, lines)) * CHARACTER_PX + 2 * MARGIN_PX
    height = len(lines) * LINE_PX + 2 * MARGIN_PX
    texts = (
        f'<text x="{MARGIN_PX}" y="{MARGIN_PX + LINE_PX * number - 4}" textLength="{len(line) * CHARACTER_PX}" '
        f'xml:space="preserve">{escape(line)}</text>'
        for number, line in enumerate(lines, 1)
        if line
    )
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="{FONT_PX}" fill="#d8dee9">',
            f'<rect width="{width}" height="{height}" rx="8" fill="#20242c"/>',
            *texts,
            "</svg>\n",
        )
    )


if __name__ == "__main__":
    demo = [sys.executable, "-m", "ibfast", *COMMAND]
    PAGE.write_text(picture(subprocess.check_output(demo, text=True, encoding="utf-8")), encoding="utf-8")
