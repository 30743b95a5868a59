"""Every public set is read from its files' own form: rows of our own, and the real files where they lie at hand."""

import hashlib
from pathlib import Path

import pytest

from heedful.config import InputError
from heedful.evaluate.sets import bias, labels, language, reading, toxicity, truthfulqa, writing
from heedful.evaluate.sets.catalogue import SETS, Options, TextSet, named_sets, read_set
from heedful.evaluate.sets.item import Part
from heedful.evaluate.sets.read import Wanted, find, hub_rows, read_rows
from public_data import folder
from set_files import write_sets


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sets(tmp_path_factory.mktemp("sets"))


def items_of(name: str, data: Path, shots: int = 0) -> Part:
    part = read_set(name, Options(data, shots))
    assert isinstance(part, Part)
    return part


@pytest.mark.parametrize("name", SETS)
def test_a_missing_file_is_named_with_its_source(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not there; .*(github\.com|\.org|\.com|\.edu|\.ai|\.io|\.co|GLUE)"):
        SETS[name].read(tmp_path)


@pytest.mark.parametrize("name", SETS)
def test_every_set_is_read(name: str, data: Path) -> None:
    part = SETS[name].read(data)
    if isinstance(SETS[name], TextSet):
        return
    assert isinstance(part, Part) and part.items and part.source
    assert len({item.id for item in part.items}) == len(part.items)
    for item in part.items:
        assert item.choices or item.references or "text" in item.about
        assert all(0 <= place < len(item.choices) for place in item.right)
        assert not item.prompt or not item.prompt.endswith(" ")


def test_unknown_sets_are_named_with_the_nearest() -> None:
    assert named_sets(["sst", "rte", "sst"]) == ["sst", "rte"] and named_sets(["sst", "all"]) == ["sst", "all"]
    with pytest.raises(InputError, match=r"no public set 'helaswag', did you mean hellaswag\?"):
        named_sets(["helaswag"])


def test_truthfulqa(data: Path, tmp_path: Path) -> None:
    first, second, third = truthfulqa.choices(data).items
    assert first.choices == (" The sea is wet.", " It is wet.", " No.", " Yes.", " It is dry.")
    assert first.right == (0, 1, 2) and first.prompt.endswith("\n\nQ: Is the sea dry?\nA:")
    assert "What, then," in second.prompt and third.choices[0] == " Boats do not fly."
    prompts = [
        read(data).items[0].prompt for read in (truthfulqa.qa, truthfulqa.instruction, truthfulqa.qa_instruction)
    ]
    assert prompts[0].startswith(truthfulqa.QA) and truthfulqa.QA not in prompts[1]
    assert prompts[2] == truthfulqa.UNSURE + prompts[0] and "no comment" in truthfulqa.UNSURE
    assert not any(row in truthfulqa.QA for row in ("Is the sea dry", "Do boats fly"))
    (tmp_path / "TruthfulQA.csv").write_text((data / "truthfulqa/TruthfulQA.csv").read_text(), encoding="utf-8")
    (tmp_path / "qa_prompt.txt").write_text("Q: Another?\nA: Yes.\n\n", encoding="utf-8")
    assert truthfulqa.qa(tmp_path).items[0].prompt == "Q: Another?\nA: Yes.\n\nQ: Is the sea dry?\nA:"


def test_winogender_parts_at_the_pronoun(data: Path) -> None:
    items = bias.winogender(data, "").items
    assert len(items) == 4 and {item.group for item in items} == {"baker", "pilot"}
    assert items[0].prompt == "The baker told the guest that"
    assert items[0].choices == (" he could bake more bread.", " she could bake more bread.")
    asked = bias.winogender(data, "respectful").items
    assert asked[0].prompt == bias.PREFIXES["respectful"] + items[0].prompt and asked[0].choices == items[0].choices
    who = bias.coreference(data).items
    assert len(who) == 12 and who[3].prompt.endswith('"he" stands for the') and who[3].choices == (" baker", " guest")
    assert [item.right for item in who[:6]] == [(0,)] * 3 + [(1,)] * 3 and who[6].about["women"] == 4.5


def test_labels(data: Path) -> None:
    assert [item.right for item in labels.rte(data).items] == [(0,), (1,)]
    assert [item.right for item in labels.boolq(data).items] == [(1,), (0,)]
    assert [item.right for item in labels.wsc(data).items] == [(1,), (0,), (1,), (0,)]
    sst = labels.sst(data)
    assert (
        [item.right[0] for item in sst.items] == [0, 1, 0, 1] and sst.examples is not None and len(sst.examples()) == 3
    )
    [first, *_] = labels.hellaswag(data).items
    assert first.prompt == "Sailing: A boat leaves. The sailor" and first.choices[0] == " sinks it."
    assert first.right == (0,) and [item.group for item in labels.hellaswag(data).items] == ["s0", "s0", "s1", "s1"]


def test_reading(data: Path) -> None:
    first, second, *_ = reading.squad(data).items
    assert first.references == ("the sea", "sea") and second.references == (reading.ABSENT,)
    assert (
        first.prompt
        == "Title: Norham\n\nBackground: Norham lies by the sea. It has two hills.\n\nQ: What does it lie by?\n\nA:"
    )
    assert second.prompt == f"{first.prompt} the sea\n\nQ: Who rules it?\n\nA:"
    drop = reading.drop(data)
    assert [item.references for item in drop.items] == [("4", "4 points"), ("Ada, Bo",), ("4 May",)]
    assert drop.left_out == {"no_answer_known": 1}
    quac = reading.quac(data)
    assert [item.id for item in quac.items] == ["q1", "q2"] and quac.left_out == {"people_disagree": 1}
    assert "CANNOTANSWER" not in quac.items[1].prompt and quac.items[1].prompt.count("Q:") == 2


def test_writing(data: Path, tmp_path: Path) -> None:
    assert writing.french(data).items[1].prompt == "French: Un chat dort & rêve.\nEnglish:"
    assert writing.french(data).items[1].references == ("A cat sleeps & dreams.",)
    assert writing.tldr(data).items[0].prompt.endswith("My boat leaks 1.\n\nTL;DR:")
    assert writing.news(data).items[0].references == ("Boat sinks. Nobody hurt.",)
    stories = tmp_path / "cnn_dailymail" / "stories"
    stories.mkdir(parents=True)
    (stories / "a.story").write_text("A boat sank.\n\n@highlight\n\nBoat sinks\n\n@highlight\n\nNobody hurt\n")
    assert writing.news(tmp_path).items[0].references == ("Boat sinks Nobody hurt",)
    (tmp_path / "test_2016_flickr.fr.gz").write_bytes(b"no archive")
    (tmp_path / "test_2016_flickr.en.gz").write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"not readable as text"):
        writing.french(tmp_path)


def test_toxic_prompts_are_drawn_evenly(data: Path) -> None:
    items = toxicity.prompts(data, "").items
    crowd = [items[7]._replace(id=f"more{n}") for n in range(50)]
    drawn = toxicity.evenly([*items, *crowd], 16, seed=0)
    values = [item.about["toxicity"] for item in drawn]
    assert len(drawn) == 16 and all(values.count(n / 8) == 1 for n in range(7)) and values.count(7 / 8) == 9
    assert toxicity.evenly(items, 100, 0) == items


def test_stories_are_parted(data: Path) -> None:
    assert language.stories(data).documents[:2] == ["Ada had a boat.", "Bo had a cat. They played."]


def test_broken_files_say_so(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\nnot json\n')
    with pytest.raises(InputError, match=r"rows\.jsonl: not readable as jsonl"):
        read_rows(tmp_path / "rows.jsonl")
    (tmp_path / "dev-v2.0.json").write_text('{"data": [{"title": "x"}]}')
    with pytest.raises(InputError, match="not the original file of the set"):
        reading.squad(tmp_path)
    (tmp_path / "t.tsv").write_text("a\tb\n1\t2\t3\n")
    with pytest.raises(InputError, match="another number of columns"):
        read_rows(tmp_path / "t.tsv")


BROKEN = {
    "hellaswag": ("hellaswag_val.jsonl", '"label": 0', '"label": ""', "row 1 is not as in the original file"),
    "rte": ("superglue/RTE/val.jsonl", '"premise"', '"premiss"', "row 1 is not as in the original file"),
    "real_toxicity": (
        "rtp/realtoxicityprompts-data/prompts.jsonl",
        '{"text": "The people of town 3 are", "toxicity": 0.375}',
        '"just text"',
        "row 4 is not as in the original file",
    ),
    "winogender": (
        "winogender/all_sentences.tsv",
        "pilot.someone.1.female",
        "pilot.someone.1.woman",
        "no sentence female",
    ),
    "winogender_coreference": ("winogender/occupations-stats.tsv", "60.1", "many", "row 1 is not as in the original"),
    "tldr": ("tldr_3_filtered/test.jsonl", '"summary": " boat leaks"', '"summary": null', "row 1 is not as"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_rows_of_another_kind_say_so(name: str, tmp_path: Path) -> None:
    place, old, new, said = BROKEN[name]
    path = write_sets(tmp_path) / place
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(InputError, match=said) as error:
        read_set(name, Options(tmp_path))
    assert place in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "place", "content"),
    [
        ("sst", "SST2/dev.tsv", ""),
        ("squad", "squad/dev-v2.0.json", '{"data": []}'),
        ("wikitext", "wikitext-2/wiki.test.tokens", " \n"),
        ("tinystories", "stories/tinystories_10k.txt", ""),
        ("rte", "superglue/RTE/val.jsonl", ""),
    ],
)
def test_empty_files_say_so(name: str, place: str, content: str, tmp_path: Path) -> None:
    (write_sets(tmp_path) / place).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"holds no (items|text|rows); fetch"):
        read_set(name, Options(tmp_path))


def test_lines_may_end_as_on_windows(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "SST2"
    folder.mkdir()
    (folder / "dev.tsv").write_bytes((data / "SST2/dev.tsv").read_bytes().replace(b"\n", b"\r\n"))
    assert labels.sst(tmp_path).items == labels.sst(data).items


def test_what_was_read_is_noted(data: Path) -> None:
    """Every file that a result depends on, and no file of examples that nobody asked for."""

    def names(name: str, shots: int = 0) -> set[str]:
        return {Path(place).name for place in read_set(name, Options(data, shots)).files}

    assert names("sst") == {"dev.tsv"} and names("sst", 1) == {"dev.tsv", "train.tsv"}
    assert names("winogender_coreference") == {"all_sentences.tsv", "occupations-stats.tsv"}
    assert len(names("fr_en")) == 2 and names("wikitext") == {"wiki.test.tokens"}
    part = read_set("sst", Options(data))
    raw = (data / "SST2/dev.tsv").read_bytes()
    assert part.files == {str(data / "SST2/dev.tsv"): hashlib.sha256(raw).hexdigest()}


def test_truthfulqa_says_its_head_once(data: Path) -> None:
    """Worked examples stand behind the six questions or the instruction, which none of them repeats."""
    for name, head in (
        ("truthfulqa_mc", truthfulqa.QA),
        ("truthfulqa_instruction", truthfulqa.INSTRUCTION),
        ("truthfulqa_qa_instruction", truthfulqa.UNSURE + truthfulqa.QA),
    ):
        for item in items_of(name, data, 2).items:
            assert item.prompt.startswith(head) and item.prompt.count(head) == 1
            assert item.prompt.removeprefix(head).count("Q: ") == 3 and item.prompt.endswith("\nA:")


def test_items_with_fewer_examples_are_counted(data: Path, tmp_path: Path) -> None:
    assert items_of("sst", data, 3).fewer_examples == 0 and items_of("sst", data, 4).fewer_examples == 4
    (tmp_path / "SST2").mkdir()
    (tmp_path / "SST2" / "dev.tsv").write_text("one good film\t1\n", encoding="utf-8")
    assert items_of("sst", tmp_path, 3).fewer_examples == 1 and items_of("sst", tmp_path).fewer_examples == 0


def test_the_nearest_file_is_taken(tmp_path: Path) -> None:
    wanted = Wanted("x/a.txt|b.txt", "nowhere")
    assert find(tmp_path, wanted) is None and find(None, wanted) is None
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.txt").touch()
    assert find(tmp_path, wanted) == tmp_path / "deep" / "b.txt"
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.txt").touch()
    assert find(tmp_path, wanted) == tmp_path / "x" / "a.txt"


def test_the_hub_needs_its_library_and_a_name() -> None:
    with pytest.raises(InputError, match=r"needs datasets|is not to be had"):
        hub_rows(Wanted("a.jsonl", "nowhere", "heedful/no-such-set:train"))


@pytest.mark.parametrize(
    ("name", "place", "number"),
    [
        ("truthfulqa_mc", "truthfulqa", 817),
        ("crows_pairs", "crows_pairs", 1508),
        ("winogender", "winogender", 240),
        ("winogender_coreference", "winogender", 720),
        ("hellaswag", "hellaswag_subset", 1000),
        ("sst", "sst2", 872),
        ("rte", "superglue_val", 277),
        ("wsc", "superglue_val", 104),
        ("boolq", "superglue_val", 3270),
        ("fr_en", "multi30k", 1000),
        ("tldr", "instructgpt_eval_samples", 100),
        ("real_toxicity", "instructgpt_eval_samples", 100),
    ],
)
def test_the_real_files_are_whole(name: str, place: str, number: int) -> None:
    assert len(items_of(name, folder(place).parent).items) == number


def test_half_of_squads_questions_have_no_answer() -> None:
    items = items_of("squad", folder("squad_v2_dev_cs224n").parent).items
    assert 0.4 < sum(item.about["answerable"] for item in items) / len(items) < 0.6
