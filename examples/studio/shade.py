"""What leaves a surface towards the eye: matte, metal, lacquer, cloth and clear glass."""

import numpy as np
import numpy.typing as npt

from studio.march import march, normal_of, openness, sunlit
from studio.scene import Part, Scene
from studio.sdf import Array, dot, mix, normalise, smoothstep, vec
from studio.tone import undevelop

Flags = npt.NDArray[np.bool_]

MIRROR = 0.3  # a rougher surface does not show the product in itself


def surroundings(scene: Scene, p: Array, ray: Array, roughness: float) -> Array:
    """Radiance from the studio itself: lamps, backdrop, floor and the dark room. [3, n]"""
    lobe = 1.1 * roughness * roughness + 0.012
    behind = smoothstep(-0.1 - roughness, 0.75 + roughness, -ray[2])
    above = smoothstep(-0.2 - roughness, 0.35 + roughness, ray[1])
    backdrop = undevelop(mix(scene.backdrop_bottom, scene.backdrop_top, above))
    seen = mix(np.full_like(backdrop, scene.room), backdrop, behind)
    down = smoothstep(0.04 + 0.5 * roughness, -0.1 - 0.5 * roughness, ray[1])
    t = np.maximum(p[1], 0.0) / np.maximum(-ray[1], 0.05)
    outside = np.hypot(p[0] + ray[0] * t, p[2] + ray[2] * t)
    near = 0.95 - (0.6 - 0.28 * behind) * (1.0 - 1.0 / (1.0 + 0.06 * outside * outside))
    floor = undevelop(scene.backdrop_bottom) * near
    seen = mix(seen, floor, down)
    for light in scene.lights:
        seen = seen + light.seen(p, ray, lobe)
    return seen


def reflect(ray: Array, normal: Array) -> Array:
    return ray - normal * (2.0 * dot(ray, normal))


def refract(ray: Array, normal: Array, ratio: float) -> tuple[Array, Flags]:
    """Snell's law with the normal against the ray; the flags say where all light is reflected."""
    c = -dot(ray, normal)
    k = 1.0 - ratio * ratio * (1.0 - c * c)
    bent = ray * ratio + normal * (ratio * c - np.sqrt(np.maximum(k, 0.0)))
    return normalise(bent), k < 0.0


def shade(scene: Scene, p: Array, ray: Array, depth: int) -> Array:
    """Light that leaves surface points against the rays. [3, n]"""
    out = np.zeros_like(p)
    owner = scene.nearest(p)
    for index in np.unique(owner):
        part, own = scene.parts[index], owner == index
        look = shade_glass if part.material.glass else shade_solid
        out[:, own] = look(scene, part, p[:, own], ray[:, own], depth)
    return out


def shade_solid(scene: Scene, part: Part, p: Array, ray: Array, depth: int) -> Array:
    material = part.material
    normal = normal_of(part, p)
    facing = np.clip(-dot(ray, normal), 0.0, 1.0)
    paint = material.colour(p)
    open_share = openness(scene, p, normal, floor=True)
    open_share = open_share + (1.0 - open_share) * 0.5 * material.wrap
    lifted = p + normal * 0.006

    diffuse = np.zeros_like(p)
    for light in scene.lights:
        towards = normalise(vec(*light.centre) - p)
        slant = (dot(normal, towards) + material.wrap) / (1.0 + material.wrap)
        slant = np.maximum(slant, 0.0)
        lit = np.flatnonzero(slant > 0.0)
        if depth == 0 and lit.size:
            seen = sunlit(scene, lifted[:, lit], towards[:, lit], light.penumbra)
            slant[lit] *= mix(seen, np.ones_like(seen), 0.5 * material.wrap)
        diffuse += light.power * slant
    floor = scene.backdrop_bottom * 0.8
    diffuse += scene.ambient * mix(floor, np.ones_like(floor), 0.5 + 0.5 * normal[1]) * open_share

    mirror = reflect(ray, normal)
    fade = (1.0 - facing) ** 5
    gleam = reflected(scene, lifted, mirror, material.roughness, depth)
    gleam = gleam * (0.3 + 0.7 * open_share)
    metal = gleam * (paint + (1.0 - paint) * fade * 0.6)
    share = material.specular + (1.0 - material.specular) * fade * (1.0 - material.roughness) ** 2
    plain = paint * diffuse * (1.0 - share) + gleam * share
    out: Array = mix(plain, metal, material.metallic)
    if material.sheen:
        out = out + material.sheen * (1.0 - facing) ** 3 * (0.4 * paint + 0.1) * diffuse
    if material.coat:
        smooth = reflected(scene, lifted, mirror, 0.03, depth)
        share = material.coat * (0.04 + 0.96 * fade)
        out = mix(out, smooth * (0.3 + 0.7 * open_share), share)
    if material.glow is not None:
        out = out + material.glow(p)
    return out


def reflected(scene: Scene, p: Array, ray: Array, roughness: float, depth: int) -> Array:
    """What a mirror at p sees: the studio, and on a smooth one also the product, once."""
    seen = surroundings(scene, p, ray, roughness)
    if roughness > MIRROR or depth >= scene.mirror_depth:
        return seen
    enter, leave = scene.span(p, ray)
    t = march(scene.distance, p, ray, np.maximum(enter, 0.01), leave, scene.step)
    hit = np.flatnonzero(np.isfinite(t))
    if hit.size:
        q = p[:, hit] + ray[:, hit] * t[hit]
        seen[:, hit] = shade(scene, q, ray[:, hit], depth + 1)
    return seen


def shade_glass(scene: Scene, part: Part, p: Array, ray: Array, depth: int) -> Array:
    glass = part.material.glass
    if glass is None:
        raise ValueError("the part is not of glass")
    normal = normal_of(part, p)
    facing = np.clip(-dot(ray, normal), 0.0, 1.0)
    share = 0.04 + 0.96 * (1.0 - facing) ** 5
    front = surroundings(scene, p, reflect(ray, normal), part.material.roughness)
    if depth > 0:
        return front * share + undevelop(scene.backdrop_top) * (1.0 - share) * 0.7

    inside, _ = refract(ray, normal, 1.0 / glass.index)
    at = p - normal * 0.006
    path = np.zeros(p.shape[1], dtype=np.float32)
    gone = np.zeros(p.shape[1], dtype=bool)
    for _ in range(3):  # inner reflections
        far = np.full(p.shape[1], 6.0, dtype=np.float32)
        t = march(lambda q: -part.shape(q), at, inside, np.full_like(far, 2e-3), far, scene.step)
        t = np.where(np.isfinite(t), t, 0.0)
        wet = np.zeros_like(path)
        for k in range(16):
            wet += glass.filling(at + inside * (t * ((k + 0.5) / 16))) < 0.0
        path = path + np.where(gone, 0.0, wet / 16 * t)
        at = np.where(gone, at, at + inside * t)
        n = normal_of(part, at)
        leaving, trapped = refract(inside, -n, glass.index)
        inside = np.where(gone, inside, np.where(trapped, reflect(inside, -n), leaving))
        at = np.where(gone, at, at + n * np.where(trapped, -0.006, 0.006))
        gone = gone | ~trapped
        if gone.all():
            break
    others = [other for other in scene.parts if other is not part]

    def opaque(q: Array) -> Array:
        best = others[0].distance(q)
        for other in others[1:]:
            best = np.minimum(best, other.distance(q))
        return best

    seen = surroundings(scene, at, inside, 0.05)
    enter, leave = scene.span(at, inside)
    t = march(opaque, at, inside, np.maximum(enter, 0.01), leave, scene.step)
    hit = np.flatnonzero(np.isfinite(t))
    if hit.size:
        seen[:, hit] = shade(scene, at[:, hit] + inside[:, hit] * t[hit], inside[:, hit], 1)
    seen = seen * np.exp(-glass.absorption * path)
    out: Array = front * share + seen * (1.0 - share)
    return out
