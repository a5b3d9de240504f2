"""The plan of one street: its cross-section, what lines it, and how things repeat along it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calibration.streetscape.geometry import Bend

Floats = npt.NDArray[np.float64]

BEHIND = 15.0
"""How far behind the camera things are still kept, metres (long vehicles reach forward)."""
AHEAD = 190.0
"""How far ahead things are drawn, metres."""


@dataclass(frozen=True)
class Side:
    """One side of the street, distances from the centre line in metres, growing outwards.

    ``lanes`` are lane centres, inner first; ``kerb`` is where the roadway ends, from ``verge``
    to ``kerb`` lies grass where they differ, then the pavement up to ``front``.
    """

    lanes: tuple[float, ...]
    lane_edge: float
    kerb: float
    verge: float
    front: float
    parking: bool

    @property
    def pavement(self) -> float:
        """The middle of the pavement."""
        return (self.verge + self.front) / 2


@dataclass(frozen=True)
class Lot:
    """A stretch of what lines the street: ``building``, ``wall``, ``fence``, ``hedge``, ``park``.

    ``variant`` picks a picture, ``setback`` is metres behind the pavement's edge.
    """

    kind: str
    start: float
    length: float
    setback: float
    variant: int


@dataclass(frozen=True)
class Plan:
    """The whole street. Lots repeat every ``period`` metres; crossings lie at ``crossings``."""

    sides: tuple[Side, Side]
    lane: float
    median: float
    tram: bool
    tram_bed: bool
    bend: Bend
    lots: tuple[tuple[Lot, ...], tuple[Lot, ...]]
    crossings: tuple[float, ...]
    crossing_width: float
    period: float
    camera_height: float
    camera_lane: int
    focal: float
    horizon: float
    speed: float
    greenery: float
    crowd: float
    traffic: float


def plan(rng: np.random.Generator, stratum: int, front_lengths: tuple[Floats, Floats]) -> Plan:
    """A street. ``front_lengths`` are the lengths of the fronts that either side can use."""
    lane = float(rng.uniform(3.0, 3.6))
    tram = stratum % 3 != 1
    tram_bed = bool(tram and rng.random() < 0.5)
    median = 3.1 if tram else float(rng.choice([0.0, 0.0, 1.2]))
    greenery = float(rng.choice([0.25, 0.6, 1.0]))
    lanes = int(rng.choice([1, 2], p=[0.6, 0.4]))
    sides = (_side(rng, lanes, lane, median), _side(rng, lanes, lane, median))
    width = float(rng.uniform(9, 14))
    blocks = int(rng.integers(6, 9))
    ends = np.cumsum(rng.uniform(70, 150, blocks))
    crossings = tuple(float(v) for v in ends)
    period = float(ends[-1] + 25)
    urban = float(rng.choice([0.5, 0.72, 0.9]))
    lots = (
        _lots(rng, crossings, period, width, urban, front_lengths[0]),
        _lots(rng, crossings, period, width, urban, front_lengths[1]),
    )
    wave = rng.uniform(0.5, 1.0, 2) * np.array([2 * np.pi / 340, 2 * np.pi / 190])
    size = float(rng.choice([0.25, 1.0, 1.6])) * np.array([0.0022, 0.0016]) / wave**2
    bend = Bend(
        (float(size[0]), float(size[1])),
        (float(wave[0]), float(wave[1])),
        (float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0, 2 * np.pi))),
    )
    return Plan(
        sides,
        lane,
        median,
        tram,
        tram_bed,
        bend,
        lots,
        crossings,
        width,
        period,
        camera_height=float(rng.choice([1.25, 1.4, 1.55, 2.1], p=[0.35, 0.3, 0.25, 0.1])),
        camera_lane=int(rng.integers(lanes)),
        focal=float(rng.uniform(0.72, 0.98)),
        horizon=float(rng.uniform(0.4, 0.48)),
        speed=float(rng.uniform(8.0, 13.0)),
        greenery=greenery,
        crowd=float(rng.choice([0.6, 1.0, 1.5])),
        traffic=float(rng.choice([0.7, 1.0, 1.3])),
    )


def _side(rng: np.random.Generator, lanes: int, lane: float, median: float) -> Side:
    edge = median + lanes * lane
    parking = bool(rng.random() < 0.65)
    kerb = edge + (2.3 if parking else 0.4)
    verge = kerb + (float(rng.uniform(1.2, 2.4)) if rng.random() < 0.4 else 0.0)
    return Side(
        tuple(median + lane * (i + 0.5) for i in range(lanes)),
        edge,
        kerb,
        verge,
        verge + float(rng.uniform(3.0, 5.5)),
        parking,
    )


def _lots(
    rng: np.random.Generator,
    crossings: tuple[float, ...],
    period: float,
    width: float,
    urban: float,
    lengths: Floats,
) -> tuple[Lot, ...]:
    lots: list[Lot] = []
    at = 0.0
    for crossing in (*crossings, period + width):
        end = min(crossing - width / 2 - 3.5, period)
        while at < end - 6:
            lot = _lot(rng, at, end, urban, lengths)
            lots.append(lot)
            at = lot.start + lot.length
        at = crossing + width / 2 + 3.5
    return tuple(lots)


def _lot(rng: np.random.Generator, at: float, end: float, urban: float, lengths: Floats) -> Lot:
    fits = np.flatnonzero(lengths <= end - at)
    if rng.random() < urban and len(fits):
        variant = int(rng.choice(fits))
        setback = float(rng.choice([0.0, 0.0, 0.0, 0.6, 1.5]))
        return Lot("building", at, float(lengths[variant]), setback, variant)
    kind = str(rng.choice(["wall", "wall", "wall", "fence", "fence", "fence", "hedge", "park"]))
    length = float(min(rng.uniform(10, 30), end - at))
    return Lot(kind, at, length, float(rng.uniform(0.0, 0.4)), int(rng.integers(2)))


@dataclass(frozen=True)
class Stream:
    """Things of one kind strung along the road, repeating every ``period`` metres.

    ``offsets`` (n,) are where they are at time 0, ``speed`` moves them all alike, ``pick`` (n,)
    says which variant each is, ``jitter`` (n,) sideways metres.
    """

    offsets: Floats
    period: float
    speed: float
    pick: npt.NDArray[np.int64]
    jitter: Floats

    @staticmethod
    def draw(
        rng: np.random.Generator,
        spacing: float,
        variants: int,
        *,
        speed: float = 0.0,
        slack: float = 0.35,
        jitter: float = 0.0,
    ) -> Stream:
        """Evenly strung with ``slack`` shares of a spacing of disorder.

        Variants are dealt like cards, so each comes up as often as any other.
        """
        count = max(1, round(max(AHEAD + BEHIND + 30, 7 * spacing) / spacing))
        offsets = (np.arange(count) + slack * (rng.random(count) - 0.5)) * spacing
        deal = [rng.permutation(variants) for _ in range(count // variants + 1)]
        return Stream(
            offsets,
            count * spacing,
            speed,
            np.concatenate(deal)[:count],
            jitter * (2 * rng.random(count) - 1),
        )

    def near(
        self, camera: float, time: float, ahead: float = AHEAD, behind: float = BEHIND
    ) -> list[tuple[float, int, float, int]]:
        """(s, variant, jitter, index) of those from ``behind`` to ``ahead`` of the camera."""
        first = camera - behind
        s = first + np.mod(self.offsets + self.speed * time - first, self.period)
        seen = np.flatnonzero(s < camera + ahead)
        return [(float(s[i]), int(self.pick[i]), float(self.jitter[i]), int(i)) for i in seen]


def crossings_near(plan: Plan, s: float) -> list[float]:
    """Where side streets cross, from behind the camera to as far as it sees, far ones first."""
    base = math.floor((s - 30) / plan.period) * plan.period
    every = [base + k * plan.period + c for k in (0, 1) for c in plan.crossings]
    return [c for c in sorted(every, reverse=True) if s - 30 < c < s + 190]
