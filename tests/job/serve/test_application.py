"""The page as a Ray Serve application on a local cluster, and its arguments."""

import re
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

serve = pytest.importorskip("ray.serve")

from job.serve.application import build  # noqa: E402
from job.serve.voices import Voices  # noqa: E402
from job.voice.voice import SpeechRequest  # noqa: E402
from tests.job.serve.test_listen import SENTENCES, asked, write_sounds  # noqa: E402
from tests.job.voices import SAID, tiny_checkpoint  # noqa: E402

PORT = 8799


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, "give checkpoint=RUN"),
        ({"checkpoints": "x"}, "unknown argument 'checkpoints'.*checkpoint"),
        ({"checkpoint": "x", "weights": "h"}, "weights=h"),
        ({"checkpoint": "x", "gpus": "many"}, "gpus=many"),
        ({"checkpoint": "x", "replicas": "-1"}, "replicas=-1"),
        ({"checkpoint": "x", "device": "gpu"}, "'gpu'"),
    ],
)
def test_arguments_that_make_no_sense(args, message):
    with pytest.raises(ValueError, match=message):
        build(args)


@pytest.mark.medium
def test_a_batch_speaks_what_each_alone_speaks_and_names_what_cannot_be(tmp_path):
    voices = Voices(str(tiny_checkpoint(tmp_path).parent))
    known = [("newest", SpeechRequest(text, who, code)) for code, (who, text) in SAID.items()]
    wanted = [*known, ("newest", SpeechRequest("カナ", "zh", "ZH")), ("best", known[0][1])]
    together = voices.say(wanted)
    for request, spoken in zip(known, together, strict=False):
        (alone,) = voices.say([request])
        assert spoken.seconds == alone.seconds > 0
    assert "empty_text" in together[3].error
    assert "no checkpoint with a score" in together[4].error


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_a_cluster_serves_the_page(tmp_path):
    checkpoint = tiny_checkpoint(tmp_path)
    write_sounds(checkpoint.parent, (7,))
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(build({"checkpoint": str(checkpoint.parent)}), name="voice", route_prefix="/voice")
    server = SimpleNamespace(port=PORT, path="/voice/speak")
    page = urllib.request.urlopen(f"http://127.0.0.1:{PORT}/voice/").read().decode()
    assert "<h1>run</h1>" in page
    assert re.search(r"<option>en</option>", page)

    heard = f"http://127.0.0.1:{PORT}/voice/heard?tag=sentence/EN_en&step=7"
    assert urllib.request.urlopen(heard).read().startswith(b"RIFF")

    begin = time.monotonic()
    status, lines = asked(server, {"text": SENTENCES, "speaker": "en"})
    assert status == 200
    assert len(lines) == 3
    assert all(line["wav"] for line in lines)

    texts = [{"text": SAID[code][1], "speaker": SAID[code][0], "language": code} for code in SAID]
    with ThreadPoolExecutor(10) as pool:
        replies = list(pool.map(lambda i: asked(server, texts[i % 3]), range(10)))
    assert [status for status, _ in replies] == [200] * 10
    assert all(len(lines) == 1 and lines[0]["wav"] for _, lines in replies)
    assert time.monotonic() - begin < 120

    status, (wrong,) = asked(server, {"text": "Hi.", "speaker": "nobody", "language": "EN"})
    assert status == 400
    assert "no speaker 'nobody'" in wrong["error"]
    serve.shutdown()
