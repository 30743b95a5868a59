"""Longer answers: translation from French by BLEU, summaries by ROUGE-L.

Prompts have the shapes of InstructGPT's released outputs, `French: English:` and a text with `TL;DR:` behind it.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from heedful.config import InputError
from heedful.evaluate.sets.item import Item, Measured, Part, Tools, clusters, resampled
from heedful.evaluate.sets.overlap import bleu_of, bleu_statistics, rouge_l
from heedful.evaluate.sets.read import Row, Wanted, columns, each, find, need, read_rows, read_text, rows
from heedful.evaluate.statistics import clustered_proportion

WMT = "WMT's test sets are on statmt.org/wmt15 (newsdiscusstest2015), Multi30k's in github.com/multi30k/dataset"
FRENCH = Wanted("newsdiscusstest2015-fren-src.fr.sgm|test_2016_flickr.fr.gz", WMT)
ENGLISH = Wanted("newsdiscusstest2015-fren-ref.en.sgm|test_2016_flickr.en.gz", WMT)
FRENCH_SHOTS = Wanted("newsdiscussdev2015-fren-src.fr.sgm|val.fr.gz", WMT)
ENGLISH_SHOTS = Wanted("newsdiscussdev2015-fren-ref.en.sgm|val.en.gz", WMT)
TLDR = Wanted(
    "tldr_3_filtered/test.jsonl|tldr_samples.csv",
    "test.jsonl of the filtered TL;DR is in github.com/openai/summarize-from-feedback",
)
TLDR_TRAIN = Wanted("tldr_3_filtered/valid.jsonl", TLDR.source)
NEWS = Wanted(
    "cnn_dailymail/test.jsonl|cnn_dailymail/stories",
    "stories are on cs.nyu.edu/~kcho/DMQA; a test.jsonl holds article and highlights",
    "abisee/cnn_dailymail:3.0.0:test",
)
NEWS_TRAIN = Wanted("cnn_dailymail/valid.jsonl", NEWS.source)


def french(data: Path | None) -> Part:
    """French to English, WMT 2015's discussions or Multi30k's captions."""
    path = need(data, FRENCH)
    items = _pairs(path, need(data, ENGLISH))
    shots = find(data, FRENCH_SHOTS)
    return Part(items, lambda: _pairs(shots, need(data, ENGLISH_SHOTS), "dev-") if shots else items, str(path))


def _pairs(source: Path, target: Path, before: str = "") -> list[Item]:
    french, english = _sentences(source), _sentences(target)
    if len(french) != len(english):
        raise InputError(f"{source} has {len(french)} sentences and {target} {len(english)}; fetch both again")
    return [
        Item(f"{before}{n}", f"French: {one}\nEnglish:", references=(other,))
        for n, (one, other) in enumerate(zip(french, english, strict=True))
    ]


def _sentences(path: Path) -> list[str]:
    """The lines of a text, or the segments of WMT's SGML."""
    text = read_text(path)
    if path.suffix != ".sgm":
        return [line.strip() for line in text.removesuffix("\n").split("\n")]
    names = (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&apos;", "'"), ("&amp;", "&"))
    found = re.findall(r"<seg[^>]*>(.*?)</seg>", text, re.DOTALL)
    for name, letter in names:
        found = [sentence.replace(name, letter) for sentence in found]
    return [sentence.strip() for sentence in found]


def bleu(items: Sequence[Item], texts: Sequence[Sequence[str]], tools: Tools) -> Measured:
    """`bleu`, 0 to 100, of all texts together; the interval draws sentences again, and there is none where all draws
    give one number."""
    statistics = bleu_statistics([text for [text] in texts], [item.references[0] for item in items])
    return Measured({"bleu": resampled(lambda index: bleu_of(statistics[index]), clusters(items))})


def tldr(data: Path | None) -> Part:
    """Reddit posts with their authors' summaries (Völske et al. 2017, filtered by Stiennon et al. 2020)."""
    path, train = need(data, TLDR), find(data, TLDR_TRAIN)
    items = _released_posts(path) if path.suffix == ".csv" else _posts(path)
    return Part(items, lambda: _posts(train, "valid-") if train else items, str(path))


def _posts(path: Path, before: str = "") -> list[Item]:
    found = columns(read_rows(path), ("subreddit", "title", "post", "summary"), str(path))

    def item(row: Row, n: int) -> Item:
        prompt = f"SUBREDDIT: r/{row['subreddit']}\nTITLE: {row['title']}\nPOST: {row['post']}\n\nTL;DR:"
        return Item(f"{before}{n}", prompt, references=(row["summary"].strip(),))

    return each(found, item, str(path))


def _released_posts(path: Path) -> list[Item]:
    """The posts of OpenAI's released outputs, whose prompts end in TL;DR already."""
    found = columns(read_rows(path), ("context", "ref_text"), str(path))
    posts = {row["context"]: row["ref_text"] for row in found}
    return [Item(str(n), post, references=(summary,)) for n, (post, summary) in enumerate(posts.items())]


def news(data: Path | None) -> Part:
    """Articles of CNN and the Daily Mail with their highlights (Hermann et al. 2015)."""
    path, train = find(data, NEWS), find(data, NEWS_TRAIN)
    if path is not None and path.is_dir():
        items, source = _stories(path), str(path)
    else:
        found, source = rows(data, NEWS)
        items = _articles(found, source)

    def examples() -> list[Item]:
        return _articles(read_rows(train), str(train), "valid-") if train else items

    return Part(items, examples, source)


def _articles(found: list[Row], source: str, before: str = "") -> list[Item]:
    known = columns(found, ("article", "highlights"), source)
    return each(known, lambda row, n: _story(f"{before}{n}", row["article"], row["highlights"]), source)


def _stories(folder: Path) -> list[Item]:
    """One text a file, each highlight behind a line of its own."""
    items = []
    for path in sorted(folder.glob("*.story")):
        article, *highlights = read_text(path).split("@highlight")
        items.append(_story(path.stem, article, " ".join(line.strip() for line in highlights)))
    if not items:
        raise InputError(f"{folder} holds no .story files; {NEWS.source}")
    return items


def _story(id: str, article: str, highlights: str) -> Item:
    return Item(id, f"{article.strip()}\n\nTL;DR:", references=(" ".join(highlights.split()),))


def rouge(items: Sequence[Item], texts: Sequence[Sequence[str]], tools: Tools) -> Measured:
    """`rouge_l` with the reference."""
    value = [rouge_l(text, item.references[0]) for item, [text] in zip(items, texts, strict=True)]
    return Measured({"rouge_l": clustered_proportion(value, clusters(items))})
