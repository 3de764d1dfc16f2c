"""The page as a Ray Serve application: `serve run job.serve.application:build checkpoint=RUN`.

A replica of Speaker holds the networks, and speaks the sentences that wait in one batch. The page
is served by replicas that hold nothing. docs/listening.md has the details.
"""

import asyncio

from ray import serve
from ray.serve import Application
from starlette.applications import Starlette

from job.serve.voices import Described, Spoken, Voices
from job.serve.web import trouble, web_app
from job.settings.keys import did_you_mean
from job.voice.device import device_of
from job.voice.voice import SpeechRequest
from trainable.config import GENERATORS

LARGEST_BATCH = 8  # sentences
WAIT_S = 0.02  # for others to fill a batch
AT_ONCE = 100  # requests that a replica accepts
DEFAULTS = {
    "checkpoint": "",
    "device": "cpu",
    "weights": GENERATORS[0],
    "replicas": "1",
    "gpus": "0",
}


class Speaker:
    """A replica that speaks.

    Args:
        checkpoint: see Voices.
        device: device that computes.
        weights: which of GENERATORS speaks.
    """

    def __init__(self, checkpoint: str, device: str, weights: str) -> None:
        self.voices = Voices(checkpoint, device_of(device), weights)

    async def described(self) -> Described:
        """Return what a page offers."""
        return await asyncio.to_thread(self.voices.described)

    async def heard(self, tag: str, step: int) -> bytes:
        """Return what was spoken at a validation; empty if there is no such sound."""
        return await asyncio.to_thread(self.voices.heard, tag, step)

    async def check(self, which: str, request: SpeechRequest) -> str:
        """Return what is wrong with a request; empty if nothing is."""
        return await asyncio.to_thread(trouble, self.voices, which, request)

    @serve.batch(max_batch_size=LARGEST_BATCH, batch_wait_timeout_s=WAIT_S)
    async def say(self, wanted: list[tuple[str, SpeechRequest]]) -> list[Spoken]:
        """Speak the sentences of all who wait, in one batch."""
        return await asyncio.to_thread(self.voices.say, wanted)


class RemoteSpeech:
    """Speaks by the replicas of Speaker that belong to this application."""

    def __init__(self) -> None:
        application = serve.get_replica_context().app_name
        self.speaker = serve.get_deployment_handle(Speaker.__name__, application)

    async def described(self) -> Described:
        """Return what a page offers."""
        return await self.speaker.described.remote()

    async def heard(self, tag: str, step: int) -> bytes:
        """Return what was spoken at a validation; empty if there is no such sound."""
        return await self.speaker.heard.remote(tag, step)

    async def check(self, which: str, request: SpeechRequest) -> str:
        """Return what is wrong with a request; empty if nothing is."""
        return await self.speaker.check.remote(which, request)

    async def say(self, which: str, request: SpeechRequest) -> Spoken:
        """Speak a sentence."""
        return await self.speaker.say.remote((which, request))


def page_app() -> Starlette:
    """Return the server of the page, as a replica runs it."""
    return web_app(RemoteSpeech())


def build(args: dict[str, str]) -> Application:
    """Return the application.

    Args:
        args: `checkpoint`; and perhaps `device`, `weights`, `replicas` of Speaker, and `gpus` of
            each of them, which may be a fraction.

    Raises:
        ValueError: names the argument.
    """
    for key in args:
        if key not in DEFAULTS:
            raise ValueError(f"unknown argument {key!r}{did_you_mean(key, list(DEFAULTS))}")
    given = DEFAULTS | {key: str(value) for key, value in args.items()}
    if not given["checkpoint"]:
        raise ValueError("give checkpoint=RUN, a run or checkpoint that all nodes can read")
    if given["weights"] not in GENERATORS:
        raise ValueError(f"weights={given['weights']}: give one of {', '.join(GENERATORS)}")
    gpus = _number("gpus", given["gpus"])
    if given["device"] == "cpu" or not gpus:
        device_of(given["device"])  # of a node with a GPU, its replica sees
    speaker = serve.deployment(
        num_replicas=max(1, int(_number("replicas", given["replicas"]))),
        max_ongoing_requests=AT_ONCE,
        ray_actor_options={"num_gpus": gpus},
    )(Speaker).bind(given["checkpoint"], given["device"], given["weights"])
    page = serve.deployment(max_ongoing_requests=AT_ONCE)(serve.ingress(page_app)(_Page))
    return page.bind(speaker)


class _Page:
    """Serves the page; that it is bound to Speaker makes both one application."""

    def __init__(self, speaker: object) -> None:
        pass


def _number(name: str, value: str) -> float:
    """Return a number of the arguments.

    Raises:
        ValueError: it is none; names it.
    """
    try:
        number = float(value)
    except ValueError as error:
        raise ValueError(f"{name}={value}: give a number") from error
    if not 0 <= number < 1000:
        raise ValueError(f"{name}={value}: give a number from 0")
    return number
