"""The server of the page, with whatever speaks behind it: this process, or a Ray Serve replica."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from job.serve.page import LONGEST_TEXT, listen_page
from job.serve.voices import Described, Spoken, Voices
from job.voice.lines import request_of
from job.voice.voice import SpeechRequest

LARGEST_BODY = 65536  # bytes of a request
CHECKPOINT = "checkpoint"  # key of a request, beside those of a SpeechRequest


class Speech(Protocol):
    """What speaks."""

    async def described(self) -> Described:
        """Return what a page offers."""

    async def heard(self, tag: str, step: int) -> bytes:
        """Return what was spoken at a validation; empty if there is no such sound."""

    async def check(self, which: str, request: SpeechRequest) -> str:
        """Return what is wrong with a request; empty if nothing is."""

    async def say(self, which: str, request: SpeechRequest) -> Spoken:
        """Speak a sentence."""


class LocalSpeech:
    """Speaks in this process: one sentence at a time, of those who wait the first comer's."""

    def __init__(self, voices: Voices) -> None:
        self.voices = voices
        self.turn = asyncio.Lock()

    async def described(self) -> Described:
        """Return what a page offers."""
        async with self.turn:
            return await asyncio.to_thread(self.voices.described)

    async def heard(self, tag: str, step: int) -> bytes:
        """Return what was spoken at a validation; empty if there is no such sound."""
        return await asyncio.to_thread(self.voices.heard, tag, step)

    async def check(self, which: str, request: SpeechRequest) -> str:
        """Return what is wrong with a request; empty if nothing is."""
        async with self.turn:
            return await asyncio.to_thread(trouble, self.voices, which, request)

    async def say(self, which: str, request: SpeechRequest) -> Spoken:
        """Speak a sentence."""
        async with self.turn:
            (spoken,) = await asyncio.to_thread(self.voices.say, [(which, request)])
        return spoken


def trouble(voices: Voices, which: str, request: SpeechRequest) -> str:
    """Return what is wrong with a request; empty if nothing is."""
    try:
        voices.check(which, request)
    except (ValueError, OSError) as error:
        return str(error)
    return ""


def web_app(speech: Speech) -> Starlette:
    """Return the server.

    GET /            the page
    GET /heard       ?tag=T&step=N: a sound of a validation, WAV
    POST /speak      a JSON object of text, speaker, language, ... and checkpoint; answers with one
                     JSON object a line, as soon as each sentence is spoken: text, step, seconds and
                     wav (base64), or text and error. What cannot be spoken at all is status 400
                     with a JSON object of error.
    """

    async def show(_: Request) -> Response:
        try:
            return HTMLResponse(listen_page(await speech.described()))
        except (ValueError, OSError) as error:
            return JSONResponse({"error": str(error)}, 503)

    async def heard(request: Request) -> Response:
        tag, step = (request.query_params.get(name, "") for name in ("tag", "step"))
        if step.isdecimal() and (wav := await speech.heard(tag, int(step))):
            return Response(wav, media_type="audio/wav")
        return JSONResponse({"error": "there is no such sound"}, 404)

    async def speak(request: Request) -> Response:
        # a page of another site can send no JSON without asking first, which nobody answers
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            return JSONResponse({"error": "give a Content-Type of application/json"}, 415)
        try:
            which, whole = _asked(await _body(request))
            sentences = whole.by_sentence()
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400)
        if wrong := await speech.check(which, whole):
            return JSONResponse({"error": wrong}, 400)
        return StreamingResponse(_told(speech, which, sentences), media_type="application/x-ndjson")

    return Starlette(
        routes=[
            Route("/", show),
            Route("/heard", heard),
            Route("/speak", speak, methods=["POST"]),
        ]
    )


async def _told(speech: Speech, which: str, sentences: list[SpeechRequest]) -> AsyncIterator[str]:
    """Yield a line for each sentence, as soon as it is spoken."""
    for sentence in sentences:
        spoken = await speech.say(which, sentence)
        line: dict[str, Any] = {"text": sentence.text}
        if spoken.error:
            line |= {"error": spoken.error}
        else:
            wav = base64.b64encode(spoken.wav).decode()
            line |= {"step": spoken.step, "seconds": round(spoken.seconds, 3), "wav": wav}
        yield json.dumps(line) + "\n"


async def _body(request: Request) -> bytes:
    """Return what was sent.

    Raises:
        ValueError: it is too much.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_BODY:
            raise ValueError(f"more than {LARGEST_BODY} bytes: give less text")
    return body


def _asked(body: bytes) -> tuple[str, SpeechRequest]:
    """Return which checkpoint is to speak, if it is said, and what.

    Raises:
        ValueError: says what is wrong with it.
    """
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError("this is no JSON") from error
    if not isinstance(given, dict):
        raise ValueError("give a JSON object with a text")
    which = given.pop(CHECKPOINT, "")
    if not isinstance(which, str):
        raise ValueError(f"{CHECKPOINT} must be of type str")
    asked = request_of(given, SpeechRequest(""))
    if len(asked.text) > LONGEST_TEXT:
        raise ValueError(f"the text has more than {LONGEST_TEXT} characters: give less")
    return which, asked
