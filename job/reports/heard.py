"""What was spoken at a run's validations, read from its TensorBoard events."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

from data.files import below, located, reachable
from trainable.run.format import TENSORBOARD_EVAL
from trainable.run.storage import names_in

SENTENCE, SYNTHESIS = "sentence/", "gen/audio_"  # tags begin so


@dataclass(frozen=True)
class Heard:
    """A sound of a validation.

    Attributes:
        tag: its tag in TensorBoard.
        step: global steps at that validation.
        text: what it says; empty in runs of older code.
        wav: content of a WAV file.
    """

    tag: str
    step: int
    text: str
    wav: bytes

    @property
    def name(self) -> str:
        """What is spoken, and by whom: `EN_anna`."""
        return self.tag.rpartition("/")[2]


def heard(run: str, begins: str = SENTENCE) -> list[Heard]:
    """Return the sounds of all validations of a run, the oldest first.

    Args:
        run: folder or URI of the run.
        begins: how their tags begin.

    Raises:
        OSError: the folder cannot be read.
    """
    found: list[Heard] = []
    for event in _events(below(run, TENSORBOARD_EVAL)):
        if event.session_log.status == SessionLog.START:
            # a session that resumed has written these steps again
            found = [each for each in found if each.step < event.step]
        for value in event.summary.value:
            if value.tag.startswith(begins) and value.WhichOneof("value") == "audio":
                text = value.metadata.summary_description
                wav = value.audio.encoded_audio_string
                found.append(Heard(value.tag, event.step, text, wav))
    return found


def events_of(run: str) -> dict[str, int]:
    """Return name -> bytes of the files in which a run's sounds are; they grow with it.

    Raises:
        OSError: the folder cannot be read.
    """
    folder = below(run, TENSORBOARD_EVAL)
    with reachable(folder):
        fs, root = located(folder)
        fs.invalidate_cache()
        return {name: fs.size(f"{root}/{name}") for name in names_in(fs, root)}


def at_step(run: str, step: int) -> Sequence[Heard]:
    """Return the sentences that a run spoke at a step, or its syntheses if it spoke none."""
    for begins in (SENTENCE, SYNTHESIS):
        if found := [each for each in heard(run, begins) if each.step == step]:
            return found
    return []


def _events(folder: str) -> Iterator[Event]:
    """Yield the events of a folder or URI, of its files in their order."""
    with reachable(folder), TemporaryDirectory() as copied:
        fs, root = located(folder)
        for name in names_in(fs, root):
            # a run in training writes on
            fs.get_file(f"{root}/{name}", f"{copied}/events")
            yield from LegacyEventFileLoader(f"{copied}/events").Load()
            Path(copied, "events").unlink()
