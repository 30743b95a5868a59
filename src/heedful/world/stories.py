"""Stories: events in an order that makes sense, about what was asked; and whether a told story makes sense."""

import random
from collections.abc import Iterable, Mapping, Sequence

from heedful.world.grammar import EVENTS, Clause, write
from heedful.world.town import Town, other_than
from heedful.world.words import BAD_FEELINGS, CATEGORIES, CATEGORY_OF, GOOD_FEELINGS, PLAIN_FORM

# What a story can be asked to be about. "thing" and "animal" carry their colour: "red kite".
Needs = Mapping[str, str]
ORDER = ("weather", "move", "get", "spot", "follow", "meet", "eat", "give", "lose", "thank", "feel", "leave", "end")
FIRST_OPENINGS = ("one day ,", "one day ,", "", "that day ,")


def random_needs(rng: random.Random, town: Town) -> dict[str, str]:
    """A full cast: two people, a thing, an animal, a place and a food."""
    person = town.someone(rng)
    return {
        "person": person,
        "other": other_than(rng, town.people, person),
        "thing": f"{rng.choice(CATEGORIES['COLOUR'])} {rng.choice(CATEGORIES['THING'])}",
        "animal": f"{rng.choice(CATEGORIES['COLOUR'])} {rng.choice(CATEGORIES['ANIMAL'])}",
        "place": rng.choice(CATEGORIES["PLACE"]),
        "food": rng.choice(CATEGORIES["FOOD"]),
    }


def compose(rng: random.Random, town: Town, needs: Needs, length: int, avoid: Iterable[str] = ()) -> list[Clause]:
    """A story of `length` sentences (more where the needs take more) that names every need and no avoided word."""
    avoid = set(avoid)
    cast = random_needs(rng, town)
    while avoid & set(" ".join(cast.values()).split()) or cast["person"] in needs.values():
        cast = random_needs(rng, town)
    cast = cast | dict(needs)
    if cast["other"] == cast["person"]:
        cast["other"] = other_than(rng, town.people, cast["person"], *avoid)
    beats = _needed(rng, needs)
    while len(beats) < length:
        options = [beat for beat in _possible(beats, avoid) if beat not in beats]
        if not options:
            break
        beats.add(rng.choice(options))
    ordered = [beat for beat in ORDER if beat in beats]
    with_place = next((b for b in ordered if b in ("move", "get", "spot", "meet")), None)
    clauses = []
    for i, beat in enumerate(ordered):
        at = beat == with_place and ("place" in needs or rng.random() < 0.7)
        clause = _beat(rng, beat, cast, at, avoid, sad="lose" in beats)
        openings: tuple[str, ...] = (
            FIRST_OPENINGS if i == 0 else ("", "", "then") if i < len(ordered) - 1 else ("", "", "at last ,")
        )
        if beat in ("weather", "end"):
            openings = ("",)
        openings = tuple(o for o in openings if not avoid & set(o.split())) or ("",)
        clauses.append(clause._replace(opening=rng.choice(openings)))
    return clauses


def _needed(rng: random.Random, needs: Needs) -> set[str]:
    beats = set()
    if "thing" in needs:
        beats.add("get")
    if "animal" in needs:
        beats.add("spot")
    if "food" in needs:
        beats.add("eat")
    elif "other" in needs:
        beats.add("give" if "thing" in needs and rng.random() < 0.6 else "meet")
    if not beats or ("place" in needs and not beats & {"get", "spot", "meet"}):
        beats.add(rng.choice(("move", "move", "get", "spot", "meet")))
    return beats


def _possible(beats: set[str], avoid: set[str]) -> list[str]:
    """What may be added to the beats so far; a beat whose only word is avoided may not."""
    options = ["move", "move", "leave", "feel", "feel", "weather"]
    if not beats & {"get", "spot", "meet"}:
        options += ["get", "spot", "meet"]
    if "get" in beats and not beats & {"give", "lose"}:
        options += ["give", "lose"]
    if "spot" in beats:
        options.append("follow")
    if beats & {"give", "meet", "eat"}:
        options.append("thank")
    if not beats & {"give", "meet"}:
        options.append("eat")
    words = {"leave": "home", "lose": "lost", "follow": "followed", "thank": "thanked"}
    return [beat for beat in options if words.get(beat) not in avoid]


def _beat(rng: random.Random, beat: str, cast: Needs, at: bool, avoid: set[str], sad: bool) -> Clause:
    person, other, place = cast["person"], cast["other"], cast["place"]
    thing, animal = cast["thing"].split(), cast["animal"].split()
    where = (place,) if at else ()

    def pick(words: Sequence[str]) -> str:
        return other_than(rng, words, *avoid)

    if beat == "move":
        return Clause(beat, (person, pick(CATEGORIES["MOVE"]), place))
    if beat in ("get", "spot"):
        return Clause(beat, (person, pick(CATEGORIES["GET"]), *(thing if beat == "get" else animal), *where))
    if beat == "give":
        return Clause(beat, (person, pick(CATEGORIES["GIVE"]), *thing, other))
    feeling = pick(BAD_FEELINGS if sad else GOOD_FEELINGS)
    slots = {
        "weather": (pick(CATEGORIES["WEATHER"]),),
        "follow": (*animal, person),
        "meet": (person, other, *where),
        "eat": (person, cast["food"], other),
        "lose": (person, *thing),
        "thank": (other, person),
        "feel": (person, feeling),
        "leave": (person,),
        "end": (),
    }[beat]
    return Clause(beat, slots)


def tell(clauses: Iterable[Clause]) -> str:
    return " ".join(write(clause) for clause in clauses)


def coherent(clauses: Sequence[Clause]) -> list[bool]:
    """For each clause in turn, whether it fits what was told before.

    It does not when "the red kite" was never introduced or is already lost or given away, thanks have no ground, a
    feeling contradicts a loss, the same is said twice, or an opening stands where it cannot.
    """
    introduced: set[tuple[str, ...]] = set()
    gone: set[tuple[str, ...]] = set()
    said: set[tuple[str, ...]] = set()
    met: set[frozenset[str]] = set()
    lost: set[str] = set()
    fits = []
    for i, clause in enumerate(clauses):
        kind, slots = clause.kind, clause.slots
        fine = kind in EVENTS and clause.key not in said
        fine &= clause.opening != ("one day ," if i else "at last ,")
        said.add(clause.key)
        if kind in ("give", "lose"):
            thing = slots[-3:-1] if kind == "give" else slots[1:]
            fine &= thing in introduced and thing not in gone
            if slots[1] != "showed":
                gone.add(thing)
            if kind == "lose":
                lost.add(slots[0])
        if kind in ("follow", "amove"):
            fine &= slots[:2] in introduced
        if kind == "thank":
            fine &= frozenset(slots) in met
        if kind == "feel":
            fine &= (slots[1] in BAD_FEELINGS) == (slots[0] in lost)
        people = [slot for slot in slots if CATEGORY_OF[slot] == "PERSON"]
        fine &= len(set(people)) == len(people)
        if kind in ("give", "meet", "eat") and len(people) == 2:
            met.add(frozenset(people))
        if kind in ("get", "spot"):
            introduced.add(slots[2:4])
        fits.append(fine)
    return fits


def mood(clauses: Iterable[Clause]) -> str:
    """ "sad" where something is lost or someone feels bad, else "happy"."""
    bad = any(c.kind == "lose" or (c.kind == "feel" and c.slots[1] in BAD_FEELINGS) for c in clauses)
    return "sad" if bad else "happy"


def questions(clauses: Iterable[Clause]) -> list[tuple[str, Clause, tuple[str, ...]]]:
    """Questions the story answers: (question, the clause that answers it, the words of a short answer)."""
    asked: list[tuple[str, Clause, tuple[str, ...]]] = []
    for clause in clauses:
        slots = clause.slots
        if clause.kind == "move":
            asked.append((f"where did {slots[0]} go ?", clause, ("to", "the", slots[2])))
        elif clause.kind in ("get", "spot"):
            verb = PLAIN_FORM[slots[1]]
            asked.append((f"what did {slots[0]} {verb} ?", clause, ("the", *slots[2:4])))
            asked.append((f"who {slots[1]} the {slots[2]} {slots[3]} ?", clause, (slots[0],)))
            asked.append((f"what colour was the {slots[3]} ?", clause, (slots[2],)))
            if len(slots) == 5:
                asked.append((f"where did {slots[0]} {verb} the {slots[3]} ?", clause, ("at", "the", slots[4])))
        elif clause.kind == "give":
            asked.append((f"who {slots[1]} the {slots[2]} {slots[3]} ?", clause, (slots[0],)))
        elif clause.kind == "meet":
            asked.append((f"who met {slots[1]} ?", clause, (slots[0],)))
        elif clause.kind == "eat":
            asked.append((f"what did {slots[0]} eat ?", clause, (slots[1],)))
        elif clause.kind == "lose":
            asked.append((f"what did {slots[0]} lose ?", clause, ("the", *slots[1:])))
        elif clause.kind == "feel":
            asked.append((f"how was {slots[0]} ?", clause, (slots[1],)))
    return asked
