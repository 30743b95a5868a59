"""How far judgements can be relied on: Krippendorff's alpha, Kendall's tau-b and distance, Likert against ranking.

Pure functions of counts and ranks. alpha is by Krippendorff's coincidences (Content Analysis, 4th ed., chapter 12):
values of a unit (here a response) are counted, so its cost does not grow with the square of the labelers, and a labeler
who did not judge a unit is simply not counted there.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Literal, NamedTuple

from heedful.store.agreement import Preferences

Level = Literal["nominal", "ordinal", "interval"]
GROUPS = 20  # parts of the jackknife
Z = 1.959964  # of a 95 % interval


class Alpha(NamedTuple):
    """1: the same values everywhere; 0: as by chance. Where `value` is None, `why` says so.

    `units` are those with at least two values, `values` their number. `stderr` is a jackknife's over parts of the
    prompts, None with fewer than two parts.
    """

    value: float | None
    why: str
    units: int
    values: int
    stderr: float | None = None


NO_PAIRS = "nothing was judged by two labelers"
NO_VARIATION = "everybody gave the same value everywhere, so there is nothing to agree on beyond chance"


class Coincidences:
    """How often the values c and k stand together in a unit: Σ over units of n_c (n_k − [c = k]) / (m − 1)."""

    def __init__(self) -> None:
        self.cells: defaultdict[tuple[int, int], float] = defaultdict(float)
        self.units = 0

    def add(self, counts: Mapping[int, int], times: int = 1) -> None:
        """A unit: value → by how many it was given, or so many equal ones. With fewer than two values it tells
        nothing."""
        m = sum(counts.values())
        if m < 2:
            return
        self.units += times
        for c, n_c in counts.items():
            for k, n_k in counts.items():
                if together := n_c * (n_k - (c == k)):
                    self.cells[c, k] += times * together / (m - 1)

    def take(self, part: "Coincidences") -> None:
        """The units of the other one too."""
        for at, number in part.cells.items():
            self.cells[at] += number
        self.units += part.units

    def without(self, part: "Coincidences") -> "Coincidences":
        rest = Coincidences()
        rest.units = self.units - part.units
        # What is left of a difference of floats is no coincidence.
        for at, number in self.cells.items():
            if (left := number - part.cells.get(at, 0.0)) > 1e-9:
                rest.cells[at] = left
        return rest

    def alpha(self, level: Level = "nominal") -> Alpha:
        """1 − observed / expected disagreement, with the level's distance between values."""
        totals: defaultdict[int, float] = defaultdict(float)
        for (c, _), number in self.cells.items():
            totals[c] += number
        n = sum(totals.values())
        values = round(n)
        if not self.units:
            return Alpha(None, NO_PAIRS, 0, 0)
        far = distances(totals, level)
        expected = sum(totals[c] * totals[k] * d for (c, k), d in far.items()) / (n - 1)
        if expected <= 0:
            return Alpha(None, NO_VARIATION, self.units, values)
        observed = sum(number * far[at] for at, number in self.cells.items())
        return Alpha(1 - observed / expected, "", self.units, values)


def distances(totals: Mapping[int, float], level: Level) -> dict[tuple[int, int], float]:
    """The squared distance of each two values; ordinal: by how many values lie between them, the ends by half."""
    order = sorted(totals)
    below, sofar = {}, 0.0
    for value in order:
        below[value] = sofar + totals[value] / 2
        sofar += totals[value]
    place = below if level == "ordinal" else {value: float(value) for value in order}
    if level == "nominal":
        return {(c, k): float(c != k) for c in order for k in order}
    return {(c, k): (place[c] - place[k]) ** 2 for c in order for k in order}


class Reliability:
    """alpha of units that come prompt by prompt, with its jackknife: units of one prompt are left out together."""

    def __init__(self) -> None:
        self.parts = [Coincidences() for _ in range(GROUPS)]
        self.prompts = 0

    def add(self, units: Sequence[Mapping[int, int]]) -> None:
        """The units of one prompt."""
        found = Coincidences()
        for counts in units:
            found.add(counts)
        self.take(found)

    def take(self, found: Coincidences) -> None:
        """The units of one prompt, or of several that are left out together."""
        self.parts[self.prompts % GROUPS].take(found)
        self.prompts += bool(found.units)

    def alpha(self, level: Level) -> Alpha:
        whole, parts = Coincidences(), [part for part in self.parts if part.units]
        for part in parts:
            whole.take(part)
        found = whole.alpha(level)
        left = [whole.without(part).alpha(level).value for part in parts]
        defined = [value for value in left if value is not None]
        if found.value is None or len(defined) < 2 or len(defined) < len(left):
            return found
        mean, g = sum(defined) / len(defined), len(defined)
        return found._replace(stderr=sqrt((g - 1) / g * sum((value - mean) ** 2 for value in defined)))


def alpha(units: Sequence[Mapping[int, int]], level: Level = "nominal") -> Alpha:
    """Krippendorff's alpha of units, each value → by how many labelers it was given."""
    whole = Coincidences()
    for counts in units:
        whole.add(counts)
    return whole.alpha(level)


def tau_b(one: Preferences, other: Preferences) -> float | None:
    """Kendall's tau-b over the pairs that both compared; None where one of them tied all of these."""
    both = one.keys() & other.keys()
    same = sum(one[pair] * other[pair] for pair in both)
    untied = sum(one[pair] != 0 for pair in both), sum(other[pair] != 0 for pair in both)
    return same / sqrt(untied[0] * untied[1]) if all(untied) else None


def distance(one: Preferences, other: Preferences) -> float | None:
    """Kendall's distance, 0 to 1: the share of pairs put in opposite orders, one tied by only one of them by half."""
    both = one.keys() & other.keys()
    if not both:
        return None
    return sum(abs(one[pair] - other[pair]) for pair in both) / (2 * len(both))


class Concordance(NamedTuple):
    """Of the pairs of responses in different places: the better one has the higher mark, the lower, the same."""

    concordant: int
    discordant: int
    same_mark: int


def concordance(rank: Mapping[str, int], mark: Mapping[str, int]) -> Concordance:
    """One labeler's marks (the higher the better) beside their ranking of the same responses."""
    found = Counter(
        (mark[a] > mark[b]) - (mark[a] < mark[b])
        for a in rank
        for b in rank
        if rank[a] < rank[b] and {a, b} <= mark.keys()
    )
    return Concordance(found[1], found[-1], found[0])


def best_share(rank: Mapping[str, int], response: str) -> float:
    """1 where the response is the best one, 1/n where it is one of n; so one ranking gives 1 in all."""
    best = [id for id, place in rank.items() if place == min(rank.values())]
    return (response in best) / len(best)


def wilson(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a share out of n (Wilson 1927)."""
    centre, width = share + Z**2 / (2 * n), Z * sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return max(0.0, (centre - width) / (1 + Z**2 / n)), min(1.0, (centre + width) / (1 + Z**2 / n))


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile, linear between neighbours."""
    ordered = sorted(values)

    def at(share: float) -> float:
        position = share * (len(ordered) - 1)
        low = int(position)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (position - low) * (ordered[high] - ordered[low])

    return at(0.25), at(0.5), at(0.75)


def mean_rank(rankings: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """The consensus of rankings of the same responses: by the mean of their places (Borda), equal means tie.

    Tied responses share the mean of the places they take, so a ranking with ties weighs no less than one without.
    """
    sums: Counter[str] = Counter()
    for rank in rankings:
        for id, place in rank.items():
            better = sum(other < place for other in rank.values())
            # Twice the shared place, a whole number, so that equal sums are equal.
            sums[id] += 2 * better + 1 + sum(other == place for other in rank.values())
    used = sorted(set(sums.values()))
    return {id: used.index(total) + 1 for id, total in sums.items()}
