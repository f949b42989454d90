"""A framed abstract print on a plastered wall.

The wall is the floor of the scene, seen from above: +x is right, -z is up, +y is out of the wall.
"""

import numpy as np
from PIL import Image, ImageDraw

from studio.lights import white
from studio.scene import Camera, Material, Part, Scene, Softbox
from studio.sdf import Array, box, box_2d, extrude, mix, move, smoothstep, vec
from studio.texture import Picture, fbm, noise, rgb, wood

WIDTH, HEIGHT = 1.60, 1.20  # half extents of the frame
SIDE = 0.055  # half the width of a bar
SHEET = (1.10, 0.78)  # half extents of the print inside the mount
GAP = 0.05  # between wall and frame


def _draw() -> Picture:
    """Cut-paper shapes: sun, hills, arches, leaves. Drawn twice as large, then shrunk."""
    wide, high = 2200, 1560
    sheet = Image.new("RGB", (wide, high), "#efe3cf")
    draw = ImageDraw.Draw(sheet)
    draw.ellipse((1330, 170, 1850, 690), fill="#e2a33c")
    draw.pieslice((-260, 620, 1240, 2120), 180, 360, fill="#b9573a")
    draw.rectangle((0, 1360, 1240, high), fill="#b9573a")
    draw.pieslice((760, 800, 2460, 2500), 180, 360, fill="#2f5560")
    draw.pieslice((430, 1080, 1390, 2040), 180, 360, fill="#e7b9a3")
    for k, colour in enumerate(("#33424d", "#efe3cf", "#c97f4e", "#efe3cf", "#7f9a84")):
        r = 400 - 72 * k
        draw.pieslice((520 - r, 820 - r, 520 + r, 820 + r), 180, 360, fill=colour)
        draw.rectangle((520 - r, 819, 520 + r, 1010), fill=colour)
    draw.line((1930, 1360, 1770, 560), fill="#26323a", width=12)
    for k in range(6):
        x, y = 1926 - 25 * k, 1250 - 125 * k
        for way in (-1, 1):
            leaf = [
                (x + way * 215 * t, y - 120 * t - bend * 62 * np.sin(np.pi * t))
                for bend in (1, -1)
                for t in (np.linspace(0, 1, 24) if bend == 1 else np.linspace(1, 0, 24))
            ]
            draw.polygon(leaf, fill="#7f9a84" if k % 2 else "#d9c7a0")
    draw.line([(160 + 18 * t, 330 + 46 * np.sin(t / 5.5)) for t in range(40)], "#26323a", 11)
    small = sheet.resize((wide // 2, high // 2), Image.Resampling.LANCZOS)
    code = np.asarray(small, dtype=np.float32).transpose(2, 0, 1) / 255.0
    linear = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
    return Picture(linear.astype(np.float32))


PRINT = _draw()


def _bar(p: Array) -> Array:
    q = move(p, 0.0, GAP + 0.07, 0.0)
    outer = box_2d(q[0], q[2], WIDTH, HEIGHT)
    rim = np.maximum(outer, -box_2d(q[0], q[2], WIDTH - 2.0 * SIDE, HEIGHT - 2.0 * SIDE))
    return extrude(rim, q[1], 0.07, 0.008)


def _oak(p: Array) -> Array:
    upright = np.abs(p[0]) - WIDTH > np.abs(p[2]) - HEIGHT
    along = np.where(upright, p[2], p[0])
    across = np.where(upright, p[0], p[2])
    q = np.stack([along, p[1], across * 1.7])
    mitre = np.abs((np.abs(p[0]) - WIDTH) - (np.abs(p[2]) - HEIGHT))
    timber = wood(q, rgb("#d9b380"), rgb("#a87643"), rings=13.0)
    return timber * (1.0 - 0.45 * smoothstep(0.006, 0.002, mitre))


def _face(p: Array) -> Array:
    x, z = p[0], p[2]
    u, v = x / (2.0 * SHEET[0]) + 0.5, z / (2.0 * SHEET[1]) + 0.5
    tooth = 1.0 + 0.03 * noise(p * 95.0) + 0.035 * fbm(p * vec(9, 9, 9), 3)
    ink = PRINT.at(u, v) * tooth
    mount = rgb("#f4f1ea") * (1.0 + 0.012 * noise(p * 60.0))
    off = box_2d(x, z, *SHEET)
    level = np.abs(z) - SHEET[1] > np.abs(x) - SHEET[0]  # the bevel's four slopes
    towards_window = np.where(level, np.sign(z), 0.6 * np.sign(x))
    bevel = mix(rgb("#b3aca0"), rgb("#ffffff"), 0.5 + 0.5 * towards_window)
    out = mix(ink, bevel, smoothstep(-0.001, 0.001, off))
    return mix(out, mount, smoothstep(0.013, 0.015, off))


def _plaster(p: Array) -> Array:
    trowel = fbm(p * vec(2.2, 1.0, 3.4), 4)
    return 1.0 + 0.035 * trowel + 0.014 * noise(p * 42.0) + np.zeros_like(p)


def scene() -> Scene:
    oak = Material(_oak, roughness=0.5, coat=0.12)
    face = Material(_face, roughness=0.6, specular=0.02, coat=0.35)
    parts = [
        Part(_bar, oak),
        Part(
            lambda p: box(move(p, 0, GAP + 0.03, 0), WIDTH - SIDE, 0.03, HEIGHT - SIDE, 0.0), face
        ),
    ]
    aim = (0.0, 0.0, 0.0)
    lights = [
        Softbox((-4.4, 3.6, -3.4), 1.0, 1.3, white(0.95, 0.3), aim, gleam=0.3),
        Softbox((4.5, 5.0, 1.0), 2.0, 2.0, white(0.25, -0.4), aim, gleam=0.1),
    ]
    return Scene(
        parts,
        Camera((0.5, 8.0, 0.35), (0.06, 0.0, 0.03), 3.3, up=(0.0, 0.0, -1.0)),
        lights,
        centre=(0.0, 0.1, 0.0),
        radius=2.1,
        backdrop_top=rgb("#c3c6bd"),
        backdrop_bottom=rgb("#cfd1c9"),
        ambient=0.36,
        floor_paint=_plaster,
        mirror_depth=0,
    )
