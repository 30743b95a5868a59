"""Every table of InstructGPT's section 4.1 from one set of judgements: who is preferred, by whom, on which prompts.

Rows are plain mappings, ready for JSON and CSV. Each says what it rests on (`num` judgements of `num_prompts` prompts,
`ties`, `unscored`: prompts that should have been judged and were not) and, where a value is None, `reason` why.

Figure 3 of the paper has four cells: training and held-out labelers × prompts sent to the base model and prompts sent
to the instruct model. Which prompt is which is asked of a function, `world.sent_to` where nobody gives another.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heedful.config import InputError
from heedful.evaluate.bradley_terry import BradleyTerry, Game, bradley_terry
from heedful.evaluate.compare import Smallest, holm, paired_differences, share_test, smallest_difference
from heedful.evaluate.length_control import length_controlled, style_of
from heedful.evaluate.statistics import Estimate, clustered_proportion
from heedful.evaluate.two_way import two_way_proportion
from heedful.evaluate.win_rate import NOBODY, Given, Outcome, counted, outcomes
from heedful.snapshot import Snapshot
from heedful.types import LabelerGroup, Prompt, Ranking, Rating, Response
from heedful.world import sent_to

Row = dict[str, Any]
Tables = dict[str, list[Row]]

GROUPS: tuple[LabelerGroup, ...] = ("train", "heldout")


@dataclass(frozen=True)
class Judged:
    """Judgements of several policies' responses to the same prompts, as every table reads them.

    given[policy][prompt id] is the id of the policy's response; text[response id] its words; group[labeler] and
    distribution[prompt id] decide which cell a judgement falls in.
    """

    rankings: Sequence[Ranking]
    ratings: Sequence[Rating]
    given: Given
    baseline: str
    text: Mapping[str, str]
    group: Mapping[str, LabelerGroup]
    distribution: Mapping[str, str]

    def __post_init__(self) -> None:
        if self.baseline not in self.given:
            raise InputError(f"baseline {self.baseline!r} gave no response; known: {', '.join(self.given) or 'nobody'}")

    @classmethod
    def of(
        cls, snapshot: Snapshot, given: Given, baseline: str, distribution: Callable[[Prompt], str] = sent_to
    ) -> "Judged":
        """From a snapshot of judgements; `distribution` names each prompt's kind, "base" or "instruct"."""
        return cls(
            snapshot.rankings,
            snapshot.ratings,
            given,
            baseline,
            {response.id: response.text for response in snapshot.responses},
            {labeler.id: labeler.group for labeler in snapshot.labelers},
            {prompt.id: distribution(prompt) for prompt in snapshot.prompts},
        )

    @property
    def headline(self) -> LabelerGroup:
        """The group whose judgements the single tables show: held-out labelers, where there are any."""
        judges = {ranking.labeler for ranking in self.rankings} | {rating.labeler for rating in self.ratings}
        return "heldout" if any(self.group[labeler] == "heldout" for labeler in judges) or not judges else "train"

    def rankings_of(self, group: LabelerGroup) -> list[Ranking]:
        return [ranking for ranking in self.rankings if self.group[ranking.labeler] == group]

    def outcomes(self, group: LabelerGroup, policy: str, baseline: str) -> list[Outcome]:
        """The group's judgements of two policies; ties of equal texts that nobody was asked of only where it judged."""
        rankings = self.rankings_of(group)
        return outcomes(rankings, self.given, policy, baseline) if rankings else []

    def distributions(self) -> list[str]:
        """ "all", and each kind of prompt where there are several."""
        kinds = sorted(set(self.distribution.values()))
        return ["all", *(kinds if len(kinds) > 1 else [])]

    def others(self) -> list[str]:
        return [name for name in self.given if name != self.baseline]


def by_model(responses: Iterable[Response]) -> dict[str, dict[str, str]]:
    """Whose response is whose, by the model each one names; those that name none are left out.

    Raises:
        InputError: a model with two responses to one prompt: which of them is compared must then be said by hand.
    """
    given: dict[str, dict[str, str]] = {}
    for response in responses:
        own = given.setdefault(response.model, {})
        if response.model and response.prompt_id in own:
            raise InputError(
                f"{response.model} gave several responses to prompt {response.prompt_id}; a comparison takes one of "
                "each model: leave the others out"
            )
        own[response.prompt_id] = response.id
    return {name: own for name, own in given.items() if name}


def tables(judged: Judged, two_way: bool = False, style: bool = False, num_resamples: int = 1000) -> Tables:
    """All tables by name; `two_way` adds intervals clustered by labeler as well, `style` controls Markdown too."""
    return {
        "win_rates": win_rates(judged, two_way),
        "differences": differences(judged),
        "bradley_terry": strengths(judged, num_resamples),
        "length_controlled": length_control(judged, style, num_resamples),
        "likert": likert(judged),
        "metadata": metadata(judged),
    }


def win_rates(judged: Judged, two_way: bool = False) -> list[Row]:
    """Win rate of every policy against the baseline by group of labelers and kind of prompt.

    The p-value of ½ is adjusted over the policies of a cell (Holm).
    `smallest_difference`: how far from ½ a win rate must lie for such a study to find it in 80 % of cases; where it is
    None and the win rate is not, `reason` is about it.
    """
    rows = []
    for group in [group for group in GROUPS if group in judged.group.values()]:
        for distribution in judged.distributions():
            cell = [_win_row(judged, name, group, distribution, two_way) for name in judged.others()]
            for row, adjusted in zip(cell, holm([row["p"] for row in cell]), strict=True):
                row["p_adjusted"] = adjusted
            rows += cell
    return rows


def _win_row(judged: Judged, name: str, group: LabelerGroup, distribution: str, two_way: bool) -> Row:
    wanted = {p for p, kind in judged.distribution.items() if distribution in ("all", kind)}
    asked = wanted & judged.given[name].keys() & judged.given[judged.baseline].keys()
    found = [o for o in judged.outcomes(group, name, judged.baseline) if o.prompt_id in wanted]
    wins = counted(found)
    value, prompts = [o.value for o in found], [o.prompt_id for o in found]
    row: Row = {"policy": name, "baseline": judged.baseline, "group": group, "distribution": distribution}
    row |= _interval(wins.estimate, "no labeler of this group judged such a prompt")
    row |= {"wins": wins.wins, "ties": wins.ties, "losses": wins.losses, "unscored": len(asked - set(prompts))}
    row["num_labelers"] = len({o.labeler for o in found} - {NOBODY})
    row |= _smallest(smallest_difference(value, prompts), row)
    row["p"], row["p_adjusted"] = share_test(value, prompts), None
    if two_way:
        both = two_way_proportion(value, prompts, [o.labeler for o in found])
        row["two_way"] = {"low": both.low, "high": both.high} | ({"reason": both.reason} if both.reason else {})
    return row


def differences(judged: Judged) -> list[Row]:
    """Paired differences of win rates against the baseline between every two other policies, adjusted by Holm."""
    values = {
        name: {(o.prompt_id, o.labeler): o.value for o in judged.outcomes(judged.headline, name, judged.baseline)}
        for name in judged.others()
    }
    rows = []
    for found in paired_differences(values):
        row: Row = {"policy": found.first, "other": found.second}
        row |= _interval(found.estimate, "no judgement holds both policies and the baseline")
        rows.append(row | {"p": found.p, "p_adjusted": found.p_adjusted} | _smallest(found.smallest, row))
    return rows


def games(judged: Judged) -> list[Game]:
    """Every judgement of every two policies."""
    names = list(judged.given)
    return [
        Game(o.prompt_id, one, other, o.value)
        for i, one in enumerate(names)
        for other in names[i + 1 :]
        for o in judged.outcomes(judged.headline, one, other)
    ]


def fit_strengths(judged: Judged, num_resamples: int = 1000) -> BradleyTerry | None:
    """Bradley-Terry over all policies, the baseline's strength 0; None where nobody judged it against another."""
    played = games(judged)
    if not any(judged.baseline in (game.first, game.second) for game in played):
        return None
    return bradley_terry(played, judged.baseline, num_resamples=num_resamples)


def strengths(judged: Judged, num_resamples: int = 1000) -> list[Row]:
    """Strength (log odds) and Elo of every policy, best first; the baseline's are 0 and 1000 by definition."""
    fitted = fit_strengths(judged, num_resamples)
    if fitted is None:
        return []
    rows = []
    for name, strength in fitted.strength.items():
        elo = fitted.elo[name]
        row: Row = {"policy": name, "reference": judged.baseline} | _interval(strength, "")
        row |= {"elo": {"mean": elo.mean, "low": elo.low, "high": elo.high}, "num_ties": fitted.num_ties}
        rows.append(row)
    return rows


def length_control(judged: Judged, style: bool = False, num_resamples: int = 1000) -> list[Row]:
    """Win rate against the baseline at equal length in characters (and style), beside the raw one."""
    rows = []
    for name in judged.others():
        found = judged.outcomes(judged.headline, name, judged.baseline)
        ours, theirs = (
            [judged.text[judged.given[policy][o.prompt_id]] for o in found] for policy in (name, judged.baseline)
        )
        longer = [len(a) - len(b) for a, b in zip(ours, theirs, strict=True)]
        marks = [(style_of(a), style_of(b)) for a, b in zip(ours, theirs, strict=True)]
        more = {key: [a[key] - b[key] for a, b in marks] for key in style_of("")} if style else None
        prompts = [o.prompt_id for o in found]
        fit = length_controlled([o.value for o in found], longer, prompts, more, num_resamples=num_resamples)
        row: Row = {"policy": name, "baseline": judged.baseline} | _interval(fit.win_rate, "nobody judged it")
        row |= {"raw": fit.raw.mean, "length_difference": sum(longer) / len(longer) if longer else None}
        row["effects"] = {key: _interval(effect, "nobody judged it") for key, effect in fit.effects.items()}
        rows.append(row)
    return rows


def likert(judged: Judged) -> list[Row]:
    """Overall quality 1-7 by policy, clustered by prompt."""
    rows = []
    for name in judged.given:
        rated = _ratings(judged, name)
        found = mean_mark(rated)
        unscored = len(judged.given[name].keys() - {r.prompt_id for r in rated})
        rows.append({"policy": name} | _interval(found, "nobody rated its responses") | {"unscored": unscored})
    return rows


def mean_mark(ratings: Sequence[Rating]) -> Estimate:
    """Mean overall quality, clustered by prompt; as a share of 1..7, whose interval stays inside and never closes."""
    share = clustered_proportion([(r.overall - 1) / 6 for r in ratings], [r.prompt_id for r in ratings])
    mean, low, high = (None if at is None else 1 + 6 * at for at in (share.mean, share.low, share.high))
    return share._replace(mean=mean, stderr=None if share.stderr is None else 6 * share.stderr, low=low, high=high)


def metadata(judged: Judged) -> list[Row]:
    """Share of ratings with each box of table 3 ticked, by policy (figure 4); `unanswered`: ratings without the box."""
    rows = []
    for flag in sorted({flag for rating in judged.ratings for flag in rating.flags}):
        for name in judged.given:
            rated = _ratings(judged, name)
            marked = [r for r in rated if flag in r.flags]
            found = clustered_proportion([r.flags[flag] for r in marked], [r.prompt_id for r in marked])
            row = {"policy": name, "flag": flag} | _interval(found, "no rating of its responses answers this box")
            rows.append(row | {"unanswered": len(rated) - len(marked)})
    return rows


def _ratings(judged: Judged, name: str) -> list[Rating]:
    """The headline group's ratings of the policy's responses."""
    given = judged.given[name]
    group = judged.headline
    return [r for r in judged.ratings if given.get(r.prompt_id) == r.response_id and judged.group[r.labeler] == group]


def _smallest(found: Smallest, row: Row) -> Row:
    """With a reason where the row's own value has none to give."""
    why = {"reason": f"smallest difference: {found.reason}"} if found.reason and "reason" not in row else {}
    return {"smallest_difference": found.difference} | why


def _interval(estimate: Estimate, none: str) -> Row:
    row: Row = {"mean": estimate.mean, "low": estimate.low, "high": estimate.high}
    row |= {"num": estimate.num, "num_prompts": estimate.num_clusters}
    if estimate.mean is None or estimate.low is None:
        row["reason"] = none if not estimate.num else estimate.reason
    return row
