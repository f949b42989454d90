"""Walks along rays through a distance field: to the surface, towards a light, into the open."""

import numpy as np

from studio.scene import Part, Scene
from studio.sdf import Array, Sdf, dot, normalise, vec

TETRAHEDRON = (vec(1, -1, -1), vec(-1, -1, 1), vec(-1, 1, -1), vec(1, 1, 1))


def march(distance: Sdf, origin: Array, ray: Array, start: Array, end: Array, step: float) -> Array:
    """Distance along each ray to the surface, or infinity; walks from start while below end."""
    n = ray.shape[1]
    reached = np.full(n, np.inf, dtype=np.float32)
    live = np.flatnonzero(end > start)
    t: Array = start[live]
    origin = np.broadcast_to(origin, ray.shape)
    o, r, stop = origin[:, live], ray[:, live], end[live]
    for turn in range(140):
        if not live.size:
            break
        d = distance(o + r * t)
        hit = d < 4e-4
        t = np.where(hit, t, t + d * step)
        if turn % 3 == 2 or turn > 130:
            done = hit | (t > stop)
            reached[live[hit]] = t[hit]
            keep = ~done
            live, t, o, r, stop = live[keep], t[keep], o[:, keep], r[:, keep], stop[keep]
    return reached


def normal_of(part: Part, p: Array, reach: float = 1.2e-3) -> Array:
    bump = part.material.bump
    total = np.zeros_like(p)
    for corner in TETRAHEDRON:
        q = p + corner * reach
        height = part.shape(q) if bump is None else part.shape(q) - bump(q)
        total += corner * height
    return normalise(total)


def sunlit(scene: Scene, p: Array, towards: Array, width: float) -> Array:
    """Share of an area light that points see, from how close their ray passes by the product."""
    n = p.shape[1]
    seen = np.ones(n, dtype=np.float32)
    passing = np.maximum(dot(vec(*scene.centre) - p, towards), 0.0)
    enter, leave = scene.span(p, towards, slack=1.1 * width * (passing + scene.radius))
    live = np.flatnonzero(leave > enter)
    t = np.maximum(enter[live], 0.012)
    o, r, stop = p[:, live], towards[:, live], leave[live]
    low = np.ones(live.size, dtype=np.float32)
    for turn in range(44):
        if not live.size:
            break
        h = scene.distance(o + r * t)
        low = np.minimum(low, h / (width * t))
        t = t + np.clip(np.abs(h) * 0.85, 0.012 + 0.02 * t, 0.7)
        done = (low < -1.0) | (t > stop)
        if turn % 4 == 3 or turn == 43:
            seen[live] = low
            keep = ~done
            live, t, low = live[keep], t[keep], low[keep]
            o, r, stop = o[:, keep], r[:, keep], stop[keep]
    seen = np.maximum(seen, -1.0)
    share: Array = 0.25 * (1.0 + seen) * (1.0 + seen) * (2.0 - seen)
    return share


def openness(scene: Scene, p: Array, normal: Array, floor: bool) -> Array:
    """Ambient occlusion in 0..1: how much nearer the scene is than an open half space would be."""
    blocked = np.zeros(p.shape[1], dtype=np.float32)
    for reach, weight in ((0.025, 0.16), (0.07, 0.2), (0.17, 0.24), (0.38, 0.24), (0.8, 0.22)):
        q = p + normal * reach
        d = scene.distance(q)
        if floor:
            d = np.minimum(d, q[1])
        blocked += weight * np.clip((reach - d) / reach, 0.0, 1.0)
    open_share = 1.0 - np.minimum(blocked, 1.0)
    return open_share * np.sqrt(np.maximum(open_share, 0.0))
