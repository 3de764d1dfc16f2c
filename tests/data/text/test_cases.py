"""What texts sound like under our normaliser: cases/*.jsonl, and more of each kind."""

import json
import re
from pathlib import Path

import pytest

from data.text.chinese.reading import before_sandhi
from data.text.chinese.spoken import speak
from data.text.front_end import FrontEndError, get_front_end

CASES = Path(__file__).with_name("cases")


def rows(name: str) -> list[dict]:
    lines = (CASES / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


PAIRS = [(row["language"], row["text"], row["sounds_as"]) for row in rows("sounds_as.jsonl")]
MORE = [
    ("ZH", "A4纸", "诶四纸"),
    ("ZH", "卡拉OK", "卡拉欧开"),
    ("ZH", "Wi-Fi信号", "wifi信号"),
    ("ZH", "12,345", "一万二千三百四十五"),
    ("ZH", "$1.5亿", "一点五亿美元"),
    ("ZH", "100$", "一百美元"),
    ("ZH", "¥100-200", "一百到两百元"),
    ("ZH", "二○二五年", "二零二五年"),
    ("ZH", "１２个", "十二个"),
    ("ZH", "第Ⅱ章", "第二章"),
    ("ZH", "①苹果②梨", "一苹果二梨"),
    ("ZH", "1½杯", "一又二分之一杯"),
    ("ZH", "6÷2", "六除以二"),
    ("ZH", "5元/㎏", "五元每千克"),
    ("ZH", "60㎞/h", "六十公里每小时"),
    ("ZH", "3-5天", "三到五天"),
    ("ZH", "12%~15%", "百分之十二到百分之十五"),
    ("ZH", "9:00am", "上午九点"),
    ("ZH", "&quot;你好&quot;", "'你好'"),
    ("ZH", "他说<b>好</b><br>吧", "他说好吧"),
    ("ZH", "你\u200b好\ufeff", "你好"),
    ("ZH", "[笑]好", "好"),
    ("ZH", "北京(Běijīng)", "北京"),
    ("ZH", "乾淨的麵條", "干净的面条"),
    ("ZH", "瀋陽的鐘錶", "沈阳的钟表"),
    ("ZH", "25 %", "百分之二十五"),
    ("JP", "10/5(土)", "10月5日土曜日"),
    ("EN", "5 + 3", "5 plus 3"),
    ("EN", "2 + 2 = 4", "2 plus 2 equals 4"),
    ("EN", "7 > 2", "7 greater than 2"),
    ("EN", "α", "alpha"),
    ("EN", "the 1,000th", "the one thousandth"),
    ("JP", "すごーーーい", "すごーい"),
    ("JP", "うわあああ", "うわー"),
    ("JP", "ねーーー！", "ねー！"),
    ("JP", "なにーー", "なにい"),
    ("JP", "9:05:30", "9時5分30秒"),
    ("JP", "3月〜5月", "3月から5月"),
    ("JP", "2024/10/05", "2024年10月5日"),
    ("JP", "5月3日（土）", "5月3日土曜日"),
    ("JP", "090-1234-5678", "ゼロキューゼロのイチニサンヨンのゴロクナナハチ"),
    ("JP", "007", "ゼロゼロナナ"),
    ("JP", "3×4=12", "3カケル4イコール12"),
    ("JP", "5cm×3cm", "5センチメートルカケル3センチメートル"),
    ("EN", "5cm × 3cm", "5 centimeters times 3 centimeters"),
    ("ZH", "5cm×3cm", "五厘米乘三厘米"),
    ("JP", "½カップ", "2分の1カップ"),
    ("JP", "100km/h", "100キロメートル毎時"),
    ("JP", "5㎡", "5平方メートル"),
    ("JP", "$1,234.56", "1234.56ドル"),
    ("JP", "NHKとGPT", "エヌエイチケーとジーピーティー"),
    ("JP", "AランクのTシャツ", "エーランクのティーシャツ"),
    ("JP", "Hello Worldと", "ハローワールドと"),
    ("JP", "漢字《かんじ》です", "かんじです"),
    ("JP", "<ruby>漢字<rt>かんじ</rt></ruby>です", "かんじです"),
    ("JP", "東京(とうきょう)に", "とうきょうに"),
    ("JP", "五分ほど", "ごふんほど"),
    ("JP", "フュージョン", "ヒュージョン"),
    ("JP", "髙島さん", "高島さん"),
    ("JP", "ﾊﾟｰﾃｨｰとｶﾞｷﾞ", "パーティーとガギ"),
    ("JP", "（笑）はい", "はい"),
    ("EN", "rock`n`roll", "rock'n'roll"),
    ("EN", "zero\u200bwidth", "zerowidth"),
    ("EN", 'said"hello"there', 'said "hello" there'),
    ("EN", "word(aside)word", "word (aside) word"),
    ("EN", "5'10\" tall", "5 feet 10 inches tall"),
    ("EN", "$1,234.56", "one thousand two hundred thirty-four dollars, fifty-six cents"),
    ("EN", "€20 or 20€", "20 euros or 20 euros"),
    ("EN", "$10-20", "10 to 20 dollars"),
    ("EN", "2x4", "2 by 4"),
    ("EN", "5‰", "5 per thousand"),
    ("EN", "5㎏", "5 kilograms"),
    ("EN", "1 kg", "one kilogram"),
    ("EN", "72°F", "72 degrees Fahrenheit"),
    ("EN", "60 km/h", "60 kilometers per hour"),
    ("EN", "3:05 p.m. sharp", "three oh five P M sharp"),
    ("EN", "at 3:00", "at three o'clock"),
    ("EN", "10-20 people", "10 to 20 people"),
    ("EN", "555-1234", "five five five, one two three four"),
    ("EN", "½ cup", "one half cup"),
    ("EN", "1½ cups", "one and a half cups"),
    ("EN", "2024-10-05", "October 5, 2024"),
    ("EN", "the 1990s", "the nineteen nineties"),
    ("EN", "St. Louis", "Saint Louis"),
    ("EN", "Main St. is", "Main street is"),
    ("EN", "Mr. and Mrs. Jones", "Mister and Missus Jones"),
    ("EN", "No. 5", "number 5"),
    ("EN", "AT&amp;T", "AT and T"),
    ("EN", "Chapter Ⅳ", "Chapter four"),
    ("EN", "Straße", "Strasse"),
    ("EN", "[laughs] Well", "Well"),
]


@pytest.fixture(scope="module")
def front_ends():
    return {language: get_front_end(language) for language in ("ZH", "JP", "EN")}


@pytest.mark.parametrize(("language", "text", "sounds_as"), PAIRS + MORE)
def test_a_text_sounds_as(front_ends, language, text, sounds_as):
    first, second = front_ends[language](text), front_ends[language](sounds_as)
    assert first.phones == second.phones
    assert language == "JP" or first.tones == second.tones
    assert first.unread == ""


@pytest.mark.parametrize("row", rows("readings.jsonl"), ids=lambda row: row["id"])
def test_a_character_is_read(row):
    syllables = [f"{name}{tone}" for name, tone in before_sandhi(speak(row["text"]).text)]
    wanted = row["reading"].split()
    place = {"first": 0, "second": 1, "third": 2, "all": 0}[row["where"].split()[0].strip(":,")]
    assert syllables[place : place + len(wanted)] == wanted


@pytest.mark.parametrize(
    ("text", "tones"),
    [
        ("一点五", "133"),
        ("一月一号", "1414"),
        ("一万二千", "2441"),
        ("一百一十一", "43121"),
        ("第一个", "415"),
        ("统一", "31"),
        ("空空的", "115"),
        ("看看", "45"),
        ("至高无上", "4124"),
        ("跑得快", "354"),
        ("他得了奖", "1253"),
        ("很长的队", "3254"),
        ("三只猫", "111"),
        ("受不了", "453"),
    ],
)
def test_tones_of_mandarin(front_ends, text, tones):
    result = front_ends["ZH"](text)
    spoken = "".join(str(tone) for tone in result.tones[1:-1:2])
    assert spoken == tones


@pytest.mark.parametrize(
    ("language", "text", "unread"),
    [
        ("ZH", "很好😂♪", "😂♪"),
        ("ZH", "你好カタカナ", "カタカナ"),
        ("JP", "ラララ♪", "♪"),
        ("JP", "彁です", "彁"),
        ("EN", "你好 hello", "你好"),
    ],
)
def test_what_no_rule_reads_is_told(front_ends, language, text, unread):
    assert front_ends[language](text).unread == unread


@pytest.mark.parametrize(("language", "text"), [("ZH", "I love you"), ("JP", "Good morning!")])
def test_a_line_in_english_alone_is_not_read_as_another_language(front_ends, language, text):
    with pytest.raises(FrontEndError, match="empty_text") as caught:
        front_ends[language](text)
    assert caught.value.unread == "".join(filter(str.isalnum, text))


def test_english_words_in_chinese_have_english_phones(front_ends):
    result = front_ends["ZH"]("买phone了")
    assert result.phones == ["_", "m", "ai", "f", "ow", "n", "l", "e", "_"]
    assert result.bert_tokens == list("买phone了")
    assert result.word2ph == [1, 2, 1, 1, 1, 0, 0, 2, 1]


@pytest.mark.parametrize("row", (CASES / "mandarin.txt").read_text("utf-8").splitlines())
def test_ordinary_sentences_of_mandarin(row):
    """Before sandhi; docs/text.md has what others make of these."""
    text, wanted = row.split("\t")
    clauses = re.findall("[一-龥]+", text)
    found = [f"{name}{tone}" for clause in clauses for name, tone in before_sandhi(clause)]
    assert found == wanted.split()
