"""Prompts find those who read them: by script, by common words, by what the prompt says of itself."""

import pytest

from heedful.store import accounts
from heedful.store.database import Store
from heedful.store.language import language_of, language_to_read, readable
from heedful.store.pools import add_prompt
from heedful.store.progress import Work
from heedful.store.slots import claim, offer, tally
from heedful.types import Prompt

TEXTS = {
    "en": ["Write a story about the sea.", "What is the capital of Spain?", "Name three rivers.", "how do I cook rice"],
    "es": ["¿Cuál es la capital de España y por qué es importante?", "Escribe un poema sobre el mar."],
    "fr": ["Quelle est la capitale de la France, et pourquoi ?", "Écris une histoire pour les enfants."],
    "de": ["Nenne drei Flüsse in der Schweiz.", "Warum ist der Himmel blau?", "SCHREIBE EIN GEDICHT"],
    "pt": ["Qual é a capital do Brasil e por que não é o Rio?", "Escreva uma história para crianças."],
    "it": ["Qual è la capitale della Svizzera e perché?", "Scrivi una storia per i bambini."],
    "zh": ["写一首关于大海的诗", "用 Python 写一个快速排序"],
    "ja": ["海についての詩を書いてください"],
    "ru": ["Напиши рассказ о море"],
    "latin": ["Pizza Margherita", "x = 3", "Napisz wiersz"],
    "": ["1 + 1 = ?", ""],
}


@pytest.mark.parametrize(("language", "text"), [(language, text) for language in TEXTS for text in TEXTS[language]])
def test_a_text_s_language(language: str, text: str) -> None:
    assert language_of(text) == language


def test_a_prompt_may_say_its_language() -> None:
    assert language_to_read("Pizza Margherita", {"language": "it"}) == "it"
    assert language_to_read("Pizza Margherita", {"language": "de_AT"}) == "de"
    assert language_to_read("Name three rivers.", {"application": "x"}) == "en"


def test_latin_letters_go_to_nobody_who_reads_none() -> None:
    assert "latin" in readable(["zh", "es"]) and "latin" not in readable(["zh", "ru"])


def test_who_reads_one_language_gets_its_prompts_and_is_told_of_the_others(store: Store) -> None:
    texts = {"a": "Write a story about the sea.", "b": "¿Cuál es la capital de España?", "c": "Pizza Margherita"}
    for id, text in texts.items():
        add_prompt(store, Prompt(id=id, text=text, user="u"))
    work = Work("demonstration")
    offer(store, work)
    for name, languages in (("eva", ("es",)), ("wang", ("zh",)), ("all", ())):
        accounts.add_account(store, name, "a long password", languages=languages)
    with store.read() as connection:
        assert tally(connection, work, "eva", ("es",)) == (0, 2, 0, 0, 1)
        assert tally(connection, work, "wang", ("zh",)) == (0, 0, 0, 0, 3)
        assert tally(connection, work, "all") == (0, 3, 0, 0, 0)
    assert claim(store, [work], "eva", 10, ("es",)).item == "b"
    assert claim(store, [work], "wang", 10, ("zh",)) is None
    assert claim(store, [work], "all", 10).item == "a"
