"""The page on which one types a text and hears it, beside what the validations spoke."""

from dataclasses import dataclass
from urllib.parse import urlencode

from data.html_page import Html, element, page, rendered, section
from job.reports.heard import Heard
from job.serve.voices import Described

LONGEST_TEXT = 5000  # characters
SHOWN = 12  # newest sounds of a sentence that are shown unfolded
POLICY = "connect-src 'self'; media-src 'self' blob:"


@dataclass(frozen=True)
class Slider:
    """A number of a SpeechRequest, as a slider."""

    name: str
    label: str
    value: float
    low: float
    high: float
    step: float
    meaning: str


SLIDERS = (
    Slider("sdp_ratio", "SDP ratio", 0.2, 0, 1, 0.05, "share of the stochastic durations"),
    Slider("noise_scale", "Noise", 0.6, 0, 2, 0.05, "variation of the sound"),
    Slider("noise_scale_w", "Rhythm noise", 0.8, 0, 2, 0.05, "variation of the rhythm"),
    Slider("length_scale", "Length", 1.0, 0.5, 2, 0.05, "above 1 slower, below 1 faster"),
)


def listen_page(told: Described) -> str:
    """Return the page."""
    names = dict.fromkeys(sound.name for sound in told.sounds)
    spoken = [_sentence([each for each in told.sounds if each.name == name]) for name in names]
    newest = told.sounds[-1] if told.sounds else None
    form = rendered(
        "listen.html.jinja",
        longest=LONGEST_TEXT,
        text="" if newest is None else newest.text,
        language="EN" if newest is None else newest.name.partition("_")[0],
        speakers=told.speakers,
        languages=told.languages,
        checkpoints=told.checkpoints,
        sliders=SLIDERS,
    )
    return page(
        told.name,
        [
            section("Speak", form),
            section(
                "Sentences of the validations",
                element("div", *spoken, class_="cards") if spoken else "",
                note="The newest one first.",
            ),
        ],
        kind="Listen",
        lead=f"the newest checkpoint is of step {told.step}",
        scripts=("listen.js",),
        policy=POLICY,
    )


def _sentence(sounds: list[Heard]) -> Html:
    """Return the sounds of a sentence, the newest first."""
    players = [_player(each) for each in reversed(sounds)]
    older = players[SHOWN:]
    folded = element("details", element("summary", f"{len(older)} older"), *older) if older else ""
    text = element("p", sounds[-1].text, class_="said")
    return element("div", element("h3", sounds[-1].name), text, *players[:SHOWN], folded)


def _player(heard: Heard) -> Html:
    source = "heard?" + urlencode({"tag": heard.tag, "step": heard.step})
    player = element("audio", controls="", preload="none", src=source)
    return element("figure", element("figcaption", f"step {heard.step}"), player)
