"""A language that is declared here and nowhere else, and its front end."""

from collections.abc import Iterator
from contextlib import contextmanager

from data.text.front_end import Phonemes, validate
from data.text.languages import LANGUAGES, Language, RandomBert, register

KOREAN = Language(
    code="KO",
    tones=2,
    front_end="tests.toy_language:KoreanFrontEnd",
    projection="ko_bert_proj",
    iso="ko",
    joiner=" ",
    error_unit="characters",
    phones=("eo", "eu"),
    random_bert=RandomBert("bert", characters=((0xAC00, 0xD7A4),)),
)


class KoreanFrontEnd:
    """Gives every syllable the same three phones."""

    language = "KO"
    version = "ko-1"

    def __call__(self, text: str) -> Phonemes:
        syllables = [char for char in text if "가" <= char <= "힣"]
        phones = ["_", *(phone for _ in syllables for phone in ("g", "eo", "n")), "_"]
        result = Phonemes(
            norm_text="".join(syllables),
            phones=phones,
            tones=[0, *([0, 1, 0] * len(syllables)), 0],
            word2ph=[1, *([3] * len(syllables)), 1],
            bert_text="".join(syllables),
            bert_tokens=syllables,
        )
        return validate(result, self.language, text)

    def data_hash(self) -> str:
        return "none"


@contextmanager
def korean() -> Iterator[Language]:
    """The language is in the table inside."""
    register(KOREAN)
    try:
        yield KOREAN
    finally:
        del LANGUAGES[KOREAN.code]
