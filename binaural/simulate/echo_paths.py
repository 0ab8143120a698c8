"""Echoes of a scene at the sensor: all paths from the speaker to the ears that are simulated.

Each part returns arrivals in the same words: delay [K] in seconds since the emission, amplitude [K] (sound
pressure, 1 at 1 m before the speaker in free field) and direction [K, 3] (world axes, towards where the
sound comes from). Speaker and ears share one point, the sensor, so an echo from distance d takes 2 d / c.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.special import fresnel, gammainc

from binaural.simulate.air import attenuation
from binaural.simulate.constants import FRAMES, SAMPLE_RATE, SPEED_OF_SOUND
from binaural.simulate.ears import kemar
from binaural.simulate.scene import Floats, Pose, Scene, sphere_directions
from binaural.simulate.source import microphone_noise, pulse, rig_reflections

LEAD_IN = 6.1e-3  # seconds of file before the direct leak begins, as on the BatVision V2 rig
LEAK_DISTANCE = 0.1  # metres from speaker to ears
LEAK_AMPLITUDE = 0.35  # the ears sit beside and behind the speaker, in its shadow
GAIN = 1.0  # full scale per unit of sound pressure
PEAK_LIMIT = 0.98  # full scale; a recording that would exceed it is turned down as a whole
RAYS = 4096
BOUNCES = 3  # reflections that rays and image sources follow; the tail stands for all later ones
NEAREST = 0.3  # metres: bound on 1 / distance where a path happens to end beside the sensor
SPECULAR_FREQUENCY = 4000.0  # Hz: the frequency at which finite reflectors are judged


@dataclass(frozen=True)
class Arrivals:
    """Sound that reaches the sensor: delay [K] s, amplitude [K], direction [K, 3] in world axes."""

    delay: Floats
    amplitude: Floats
    direction: Floats


def directivity(pose: Pose, directions: Floats) -> Floats:
    """Amplitude that the speaker emits along directions [N, 3], relative to straight ahead.

    A first-order pattern: 1 ahead, 0.1 behind, like a small box speaker in its middle register.
    """
    cosine = np.einsum("ni,i->n", directions, pose.axes[0]) / np.linalg.norm(directions, axis=1)
    return 0.55 + 0.45 * cosine


DIRECTIVITY_POWER = 0.55**2 + 0.45**2 / 3  # mean square of the pattern over the sphere


def direct(pose: Pose) -> Arrivals:
    """The leak from the speaker to the ears and the rig's own reflections; the same in every scene."""
    delay, amplitude, direction = rig_reflections()
    return Arrivals(
        LEAK_DISTANCE / SPEED_OF_SOUND + delay, LEAK_AMPLITUDE * amplitude, pose.to_world(direction)
    )


def diffuse(scene: Scene, pose: Pose, rng: np.random.Generator, rays: int = RAYS) -> tuple[Arrivals, float]:
    """Diffuse reflections: diffuse rain (Schroeder, 2011) from rays that bounce up to three times.

    A ray carries D^2 4 pi / N. Where it hits, the scattered share s (1 - a) reaches the sensor at distance
    r with the energy s (1 - a) cos(theta) / (pi r^2) of a Lambert radiator; the ray goes on with (1 - a),
    in a random direction with probability s, otherwise mirrored. A path that begins with a mirror
    reflection also runs backwards, arriving from where it was emitted to: that makes diffuse-specular
    echoes out of specular-diffuse ones. Amplitudes are square roots of energies with random signs, for
    the phase of a rough surface is random.

    Returns:
        the arrivals, and the share of rays that had left the scene by their last bounce.
    """
    outward = sphere_directions(rays, rng)
    start = np.broadcast_to(pose.position, outward.shape)
    heading = outward
    emitted = directivity(pose, outward) ** 2
    energy = np.full(rays, 4 * np.pi / rays)
    travelled = np.zeros(rays)
    mirrored_first = np.zeros(rays, bool)
    lengths, energies, directions = [], [], []
    for bounce in range(BOUNCES):
        distance, triangle = scene.cast(start, heading)
        hit = np.isfinite(distance)
        outward, start, heading, emitted = outward[hit], start[hit], heading[hit], emitted[hit]
        energy, travelled, mirrored_first = energy[hit], travelled[hit], mirrored_first[hit]
        distance, triangle = distance[hit], triangle[hit]
        surface = scene.triangle_surface[triangle]
        scattering = scene.surfaces.scattering[surface]

        point = start + distance[:, None] * heading
        normal = scene.normals[triangle]
        normal = np.where(np.einsum("ni,ni->n", normal, heading)[:, None] > 0, -normal, normal)
        travelled = travelled + distance
        energy = energy * (1 - scene.surfaces.absorption[surface])

        home = pose.position - point
        reach = np.linalg.norm(home, axis=1)
        cosine = np.einsum("ni,ni->n", normal, home) / np.maximum(reach, 1e-9)
        audible = cosine > 0
        if bounce > 0:  # the first hit sees the sensor: that is where its ray came from
            audible &= scene.visible(point, pose.position)
        lambert = energy * scattering * cosine / (np.pi * np.maximum(reach, NEAREST) ** 2)
        radiated = lambert[audible]
        lengths.append(travelled[audible] + reach[audible])
        energies.append(radiated * emitted[audible])
        directions.append(-home[audible])
        if bounce > 0:
            back = mirrored_first[audible]
            lengths.append(lengths[-1][back])
            energies.append(radiated[back] * directivity(pose, -home[audible][back]) ** 2)
            directions.append(outward[audible][back])

        rough = rng.random(len(point)) < scattering
        mirrored = heading - 2 * np.einsum("ni,ni->n", heading, normal)[:, None] * normal
        # The normal plus a random unit vector is distributed by Lambert's cosine law.
        ball = rng.normal(size=point.shape)
        scattered = normal + ball / np.linalg.norm(ball, axis=1, keepdims=True)
        scattered /= np.linalg.norm(scattered, axis=1, keepdims=True) + 1e-12
        heading = np.where(rough[:, None], scattered, mirrored)
        start = point + 1e-4 * normal
        if bounce == 0:
            mirrored_first = ~rough

    energy = np.concatenate(energies)
    sign = rng.choice([-1.0, 1.0], len(energy))
    arrivals = Arrivals(
        np.concatenate(lengths) / SPEED_OF_SOUND, sign * np.sqrt(energy), np.concatenate(directions)
    )
    return arrivals, 1 - len(start) / rays


def specular(scene: Scene, pose: Pose) -> Arrivals:
    """First-order mirror reflections of every visible rectangle.

    A finite reflector returns the share of the wave that its part of the Fresnel zones lets through: per
    edge direction |F(w2) - F(w1)| / sqrt(2) of the Fresnel integral F at 4 kHz (Born and Wolf, 8.7), 1 for
    a wall, falling off smoothly as the mirror point moves out over the edge. The echo comes from the point
    of the rectangle that is nearest to the mirror point.
    """
    rectangles = scene.rectangles
    normal = rectangles.normal
    offset = pose.position - rectangles.centre
    height = np.abs(np.einsum("mi,mi->m", offset, normal))
    along = np.einsum("mi,mki->mk", offset, rectangles.sides)  # mirror point in the rectangle's own axes
    # sqrt(2 / (wavelength * rho)) with 1 / rho = 1 / d + 1 / d for emission and return over d.
    scale = np.sqrt(4 * SPECULAR_FREQUENCY / (SPEED_OF_SOUND * np.maximum(height, 1e-3)))[:, None]
    sine_high, cosine_high = fresnel((rectangles.half - along) * scale)
    sine_low, cosine_low = fresnel((-rectangles.half - along) * scale)
    passed = np.hypot(cosine_high - cosine_low, sine_high - sine_low).prod(axis=1) / 2

    nearest = rectangles.centre + np.einsum(
        "mk,mki->mi", np.clip(along, -rectangles.half, rectangles.half), rectangles.sides
    )
    # A hair inside the edge, so that the ray that checks visibility meets this rectangle and no neighbour.
    probe = nearest + 1e-2 * (rectangles.centre - nearest)
    seen = (passed > 0.02) & (height > 1e-3) & scene.visible(probe, pose.position)
    surface = rectangles.surface[seen]
    leg = nearest[seen] - pose.position
    length = np.linalg.norm(leg, axis=1)
    kept = (1 - scene.surfaces.absorption[surface]) * (1 - scene.surfaces.scattering[surface])
    return Arrivals(
        2 * length / SPEED_OF_SOUND,
        directivity(pose, leg) * passed[seen] * np.sqrt(kept) / (2 * length),
        leg,
    )


def image_sources(scene: Scene, pose: Pose, orders: tuple[int, ...] = (2, 3)) -> Arrivals:
    """Mirror reflections at the walls of a shoebox room (Allen and Berkley, 1979), of the given orders.

    Images whose path is blocked by furniture are dropped. A scene that is no shoebox has none: there, the
    tail carries their energy.
    """
    if scene.room is None:
        return Arrivals(np.empty(0), np.empty(0), np.empty((0, 3)))
    highest = max(orders)
    steps = range(-highest, highest + 1)
    cells = np.array([cell for cell in product(steps, steps, steps) if sum(map(abs, cell)) in orders])
    # In cell n of the mirrored lattice the room is flipped where n is odd.
    flipped = cells % 2 == 1
    image = cells * scene.room + np.where(flipped, scene.room - pose.position, pose.position)
    leg = image - pose.position
    length = np.linalg.norm(leg, axis=1)
    # Along one axis, cell n crosses |n| walls, alternately the far and the near one.
    far = np.where(cells > 0, (cells + 1) // 2, -cells // 2)
    counts = np.stack([np.abs(cells) - far, far], axis=2).reshape(-1, 6)
    kept = (1 - scene.surfaces.absorption[:6]) * (1 - scene.surfaces.scattering[:6])
    amplitude = np.sqrt(kept**counts).prod(axis=1) / length
    emitted = np.where(flipped, leg, -leg)  # the last leg, unfolded back into the room
    amplitude *= directivity(pose, emitted)
    clear = _unobstructed(scene, pose, cells, leg)
    return Arrivals(length[clear] / SPEED_OF_SOUND, amplitude[clear], leg[clear])


def _unobstructed(scene: Scene, pose: Pose, cells: NDArray[np.int64], leg: Floats) -> NDArray[np.bool_]:
    """Whether the folded paths of the images in cells [K, 3], straight lines leg [K, 3] long, are free."""
    assert scene.room is not None
    most = int(np.abs(cells).sum(axis=1).max())
    # Fractions of the straight line at which it crosses walls; paths with fewer crossings repeat the end.
    crossing = np.ones((len(cells), most + 2))
    crossing[:, 0] = 0
    for path, (cell, step) in enumerate(zip(cells, leg, strict=True)):
        walls = [
            (plane * scene.room[axis] - pose.position[axis]) / step[axis]
            for axis in range(3)
            for plane in (range(1, cell[axis] + 1) if cell[axis] > 0 else range(cell[axis] + 1, 1))
        ]
        crossing[path, 1 : 1 + len(walls)] = sorted(walls)
    unfolded = pose.position + crossing[:, :, None] * leg[:, None]
    points = scene.room - np.abs(unfolded % (2 * scene.room) - scene.room)
    legs = scene.visible(points[:, :-1].reshape(-1, 3), points[:, 1:].reshape(-1, 3))
    return np.asarray(legs.reshape(len(cells), -1).all(axis=1))


def tail(scene: Scene, pose: Pose, rng: np.random.Generator, escaped: float = 0.0) -> Arrivals:
    """All reflections beyond the third order: one arrival per sample from a random direction.

    In a diffuse field energy arrives at the rate 4 pi c D^2 / V, falling by (1 - a) with every mean free
    path l (Eyring, 1930), and the number of reflections of what arrives at t is a Poisson variable with
    mean c t / l: the tail is the share with more than three. In a scene without image sources it is also
    the purely specular share of orders two and three.

    Args:
        escaped: share of rays that leave the scene: openings count as fully absorbing.
    """
    delay = np.arange(1, FRAMES) / SAMPLE_RATE
    reflections = SPEED_OF_SOUND * delay / scene.mean_free_path
    kept = (1 - escaped) * (1 - scene.mean_absorption)
    later = gammainc(BOUNCES + 1, reflections)  # Poisson: more than BOUNCES reflections
    if scene.room is None:
        smooth = 1 - scene.mean_scattering
        none = np.exp(-reflections)
        later += none * ((reflections * smooth) ** 2 / 2 + (reflections * smooth) ** 3 / 6)
    rate = 4 * np.pi * SPEED_OF_SOUND / scene.volume * DIRECTIVITY_POWER * kept**reflections * later
    amplitude = np.sqrt(rate / SAMPLE_RATE)
    delay, amplitude = delay[amplitude > 1e-5], amplitude[amplitude > 1e-5]
    return Arrivals(
        delay,
        amplitude * rng.normal(size=len(delay)),
        pose.to_world(kemar().directions[rng.integers(len(kemar().directions), size=len(delay))]),
    )


def impulse_response(
    scene: Scene, pose: Pose, rng: np.random.Generator, parts: list[Arrivals] | None = None
) -> NDArray[np.float32]:
    """Pressure at both ears after a unit impulse, [2, FRAMES], the emission at frame 0.

    Args:
        parts: the arrivals to render; by default all that the scene has and the rig's own.
    """
    if parts is None:
        rain, escaped = diffuse(scene, pose, rng)
        parts = [
            direct(pose),
            specular(scene, pose),
            rain,
            image_sources(scene, pose),
            tail(scene, pose, rng, escaped),
        ]
    response = kemar().hear(
        np.round(np.concatenate([part.delay for part in parts]) * SAMPLE_RATE).astype(np.int64),
        np.concatenate([part.amplitude for part in parts]),
        pose.to_sensor(np.concatenate([part.direction for part in parts])),
        FRAMES,
    )
    return attenuation(response, scene.mean_absorption, scene.mean_free_path)


def record(scene: Scene, pose: Pose, rng: np.random.Generator) -> NDArray[np.float32]:
    """The rig's recording: [2, FRAMES], full scale 1, left ear first."""
    response = impulse_response(scene, pose, rng)
    emission = round((LEAD_IN - LEAK_DISTANCE / SPEED_OF_SOUND) * SAMPLE_RATE)
    size = 1 << 15  # at least response and pulse together, so that nothing wraps round
    spectrum = np.fft.rfft(response, size, axis=1) * np.fft.rfft(pulse(), size)
    echoes = GAIN * np.fft.irfft(spectrum, size, axis=1)[:, : FRAMES - emission]
    recording = microphone_noise(rng)
    recording[:, emission:] += echoes.astype(np.float32)
    peak = np.abs(recording).max()
    return recording * np.float32(min(1.0, PEAK_LIMIT / peak))
