"""Units of measurement: how each is said behind a number in Chinese, Japanese and English."""

import re
from collections.abc import Callable, Iterable, Mapping

_TABLE = """
km/h     公里每小时   キロメートル毎時   kilometer per hour    kilometers per hour
m/s      米每秒       メートル毎秒       meter per second      meters per second
kg       千克         キログラム         kilogram              kilograms
mg       毫克         ミリグラム         milligram             milligrams
μg       微克         マイクログラム     microgram             micrograms
g        克           グラム             gram                  grams
km2      平方千米     平方キロメートル   square kilometer      square kilometers
cm2      平方厘米     平方センチメートル square centimeter     square centimeters
mm2      平方毫米     平方ミリメートル   square millimeter     square millimeters
m2       平方米       平方メートル       square meter          square meters
cm3      立方厘米     立方センチメートル cubic centimeter      cubic centimeters
m3       立方米       立方メートル       cubic meter           cubic meters
km       千米         キロメートル       kilometer             kilometers
cm       厘米         センチメートル     centimeter            centimeters
mm       毫米         ミリメートル       millimeter            millimeters
μm       微米         マイクロメートル   micrometer            micrometers
nm       纳米         ナノメートル       nanometer             nanometers
m        米           メートル           meter                 meters
ha       公顷         ヘクタール         hectare               hectares
mL       毫升         ミリリットル       milliliter            milliliters
ml       毫升         ミリリットル       milliliter            milliliters
dL       分升         デシリットル       deciliter             deciliters
L        升           リットル           liter                 liters
l        升           リットル           liter                 liters
cc       立方厘米     シーシー           cubic centimeter      cubic centimeters
KB       千字节       キロバイト         kilobyte              kilobytes
kB       千字节       キロバイト         kilobyte              kilobytes
MB       兆字节       メガバイト         megabyte              megabytes
GB       吉字节       ギガバイト         gigabyte              gigabytes
TB       太字节       テラバイト         terabyte              terabytes
Mbps     兆比特每秒   メガビーピーエス   megabit per second    megabits per second
Gbps     吉比特每秒   ギガビーピーエス   gigabit per second    gigabits per second
GHz      吉赫兹       ギガヘルツ         gigahertz             gigahertz
MHz      兆赫兹       メガヘルツ         megahertz             megahertz
kHz      千赫兹       キロヘルツ         kilohertz             kilohertz
Hz       赫兹         ヘルツ             hertz                 hertz
kWh      千瓦时       キロワット時       kilowatt hour         kilowatt hours
kW       千瓦         キロワット         kilowatt              kilowatts
MW       兆瓦         メガワット         megawatt              megawatts
W        瓦           ワット             watt                  watts
kV       千伏         キロボルト         kilovolt              kilovolts
V        伏           ボルト             volt                  volts
mAh      毫安时       ミリアンペア時     milliamp hour         milliamp hours
Ω        欧姆         オーム             ohm                   ohms
dB       分贝         デシベル           decibel               decibels
hPa      百帕         ヘクトパスカル     hectopascal           hectopascals
kcal     千卡         キロカロリー       kilocalorie           kilocalories
cal      卡           カロリー           calorie               calories
ms       毫秒         ミリ秒             millisecond           milliseconds
sec      秒           秒                 second                seconds
min      分钟         分                 minute                minutes
hr       小时         時間               hour                  hours
hrs      小时         時間               hour                  hours
h        小时         時間               hour                  hours
rpm      转每分       アールピーエム     R P M                 R P M
mph      英里每小时   マイル毎時         mile per hour         miles per hour
lb       磅           ポンド             pound                 pounds
lbs      磅           ポンド             pound                 pounds
oz       盎司         オンス             ounce                 ounces
ft       英尺         フィート           foot                  feet
yd       码           ヤード             yard                  yards
mi       英里         マイル             mile                  miles
px       像素         ピクセル           pixel                 pixels
°C       摄氏度       度                 degree_Celsius        degrees_Celsius
°F       华氏度       度                 degree_Fahrenheit     degrees_Fahrenheit
°        度           度                 degree                degrees
%        %            パーセント         percent               percent
‰        ‰            パーミル           per_thousand          per_thousand
"""
_COLUMNS = {"ZH": 1, "JP": 2}


def _rows() -> list[list[str]]:
    rows = [re.split(r"\s{2,}|(?<=ル) (?=[a-z])", line) for line in _TABLE.strip().splitlines()]
    return [[cell.replace("_", " ") for cell in row] for row in rows]


_ROWS = _rows()
_NUMBER = r"(?P<number>\d+(?:[.,]\d+)*)"


# units that are no words of their own, and so are known without a number
_ALONE = "kg km cm mm μm km2 cm2 m2 cm3 m3 ml mL °C °F GB MB TB KB kW kWh MHz GHz kHz Hz dB km/h"


def _pattern(symbols: Iterable[str], number: str) -> re.Pattern[str]:
    """Match a number with one of these units; no unit is the beginning of a word."""
    listed = "|".join(re.escape(symbol) for symbol in sorted(symbols, key=len, reverse=True))
    return re.compile(rf"{number}(?P<unit>{listed})(?![A-Za-z0-9^])", re.ASCII)


def names(language: str) -> dict[str, str]:
    """Return unit -> what is said, in ZH or JP."""
    return {row[0]: row[_COLUMNS[language]] for row in _ROWS}


def english_names() -> dict[str, tuple[str, str]]:
    """Return unit -> what is said of one, and of several."""
    return {row[0]: (row[3], row[4]) for row in _ROWS}


def reader(say: Callable[[str, str], str], symbols: Mapping[str, object]) -> Callable[[str], str]:
    """Return what writes units out, behind numbers and, where that is clear, by themselves.

    Args:
        say: makes of a number and its unit what is said.
        symbols: the units.
    """
    counted = _pattern(symbols, rf"{_NUMBER}\s?")
    alone = _pattern(set(_ALONE.split()) & symbols.keys(), r"(?<![A-Za-z0-9.])(?P<number>)")

    def read(text: str) -> str:
        for pattern in (counted, alone):
            text = pattern.sub(lambda match: say(match["number"], match["unit"]), text)
        return text

    return read
