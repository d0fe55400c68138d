import unicodedata

import pytest

from drllama.text import normalise, sentences, shingles

TEXTS = [
    "",
    " ",
    "One.",
    "It fell (p = 0.05). Was it so? Yes, in 3.5% of cases vs. 4.1% (e.g. Smith et al. 2019). And then?!  ",
    "First line\nSecond line.\n\nThird",
    "效果很好。真的吗？是的",
    "क्या यह काम करता है? हाँ। नहीं।",
    "هل هو فعال؟ نعم.",
    "Ends in dots... And goes on.",
    "\n\n",
]


@pytest.mark.parametrize("text", TEXTS)
def test_sentences_joined_are_the_text_again(text):
    assert "".join(sentences(text)) == text


@pytest.mark.parametrize("text", TEXTS)
def test_no_sentence_is_empty(text):
    assert "" not in sentences(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("Smith et al. found it. It was so.", 2),
        ("The dose was 2.5 mg vs. 5 mg.", 1),
        ("Did it help? It did! Good.", 3),
        ("真的吗？是的。", 2),
        ("यह अच्छा है। हाँ।", 2),
        ("A heading\nA sentence.", 2),
    ],
)
def test_abbreviations_and_decimals_end_no_sentence_and_every_script_has_its_own_marks(text, number):
    assert len(sentences(text)) == number


@pytest.mark.parametrize("text", [*TEXTS, "ﬁne Ｗｉｄｅ ÅNGSTRÖM Straße ①"])
def test_a_normalised_text_is_its_own_normal_form(text):
    assert normalise(normalise(text)) == normalise(text)


def test_normalising_forgets_case_width_composition_and_white_space():
    composed = "Café  Ｎｏ.１"
    assert normalise(unicodedata.normalize("NFD", composed).upper()) == normalise(composed) == "café no.1"


def test_shingles_don_t_see_white_space_or_case():
    assert shingles("Does it\nwork?") == shingles("DOES  IT WORK?")


def test_a_text_shorter_than_a_shingle_is_one_shingle():
    assert shingles("是的") == {"是的"}
    assert shingles("") == {""}


def test_a_text_has_a_shingle_for_each_place_that_one_fits_in():
    assert shingles("abcdefgh") == {"abcde", "bcdef", "cdefg", "defgh"}
