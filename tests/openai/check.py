"""OpenAI's own Python client against a camscribe that serves the small model inside it.

    check.py CAMSCRIBE
"""

import base64
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import time
import zlib

import openai

TIMEOUT = 120


def png(colour: tuple[int, int, int]) -> str:
    """A picture of 64 x 48 pixels of one colour, as base64."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(colour) * 64 for _ in range(48))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 48, 8, 2, 0, 0, 0))
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")).decode()


def image(colour: tuple[int, int, int]) -> dict:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png(colour)}"}}


def ask(client: openai.OpenAI, content, **options):
    options.setdefault("max_tokens", 12)
    return client.chat.completions.create(model="shapes", messages=[{"role": "user", "content": content}], **options)


def check_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list().data] == ["shapes"]
    assert client.models.retrieve("shapes").owned_by == "camscribe"


def check_images(client: openai.OpenAI) -> None:
    few = ask(client, [image((200, 0, 0)), {"type": "text", "text": "What is shown?"}])
    many = ask(client, [image((200, 0, 0)), image((0, 0, 200)), {"type": "text", "text": "Which differs?"}])
    for answer in (few, many):
        choice = answer.choices[0]
        assert choice.message.role == "assistant" and choice.message.content, answer
        assert choice.finish_reason in ("stop", "length"), answer
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert many.usage.prompt_tokens > few.usage.prompt_tokens


def check_video(client: openai.OpenAI) -> None:
    frames = ",".join(png((shade, 0, 0)) for shade in range(0, 200, 50))
    video = {"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{frames}"}}
    kwargs = {"media_io_kwargs": {"video": {"fps": 2.0}}}
    answer = ask(client, [video, {"type": "text", "text": "What happens?"}], extra_body=kwargs)
    assert answer.choices[0].message.content, answer


def check_stream(client: openai.OpenAI) -> None:
    whole = ask(client, "Say something.").choices[0]
    chunks = list(ask(client, "Say something.", stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text.strip() == whole.message.content.strip(), (text, whole)
    assert chunks[0].choices[0].delta.role == "assistant"
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert reasons[-1] == whole.finish_reason and not any(reasons[:-1]), reasons
    assert not chunks[-1].choices and chunks[-1].usage.completion_tokens > 0


def check_logprobs(client: openai.OpenAI) -> None:
    choice = ask(client, "Say something.", logprobs=True, top_logprobs=3, max_tokens=4).choices[0]
    scores = choice.logprobs.content
    assert scores and len(scores) <= 4, scores
    for score in scores:
        assert score.logprob <= 0 and len(score.top_logprobs) == 3, score
        # Nothing is drawn, so each token is the most likely one.
        assert score.top_logprobs[0].token == score.token, score
    assert b"".join(bytes(score.bytes) for score in scores).decode().strip() == choice.message.content


def check_json_schema(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"moves": {"type": "boolean"}},
        "required": ["moves"],
        "additionalProperties": False,
    }
    answer_format = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    choice = ask(client, "Does it move?", response_format=answer_format, max_tokens=64).choices[0]
    assert choice.finish_reason == "stop", choice
    assert list(json.loads(choice.message.content)) == ["moves"], choice


def check_decisions(client: openai.OpenAI) -> None:
    decision = client.decisions.create(
        model="shapes",
        input=[{"role": "user", "content": [
            {"type": "input_image", "image_url": f"data:image/png;base64,{png((200, 0, 0))}"},
            {"type": "input_text", "text": "A picture."},
        ]}],
        questions=[
            {"type": "predicate", "name": "red", "instructions": "Is it red?"},
            {"type": "choice", "instructions": "Which colour is it?", "choices": [{"value": "red"}, {"value": "blue"}]},
            {"type": "score", "instructions": "How large is it?", "levels": [{"label": "small"}, {"label": "large"}]},
        ],
    )
    red, colour, size = decision.answers
    assert (red.type, red.name, colour.name) == ("predicate", "red", None) and 0 <= red.probability <= 1, red
    assert colour.choice in ("red", "blue") and 0 <= colour.confidence <= 1, colour
    assert abs(sum(each.probability for each in colour.probabilities) - 1) < 1e-6, colour
    assert abs(size.score - size.probabilities[1].probability) < 1e-6, size
    assert decision.usage.input_tokens == decision.usage.total_tokens > 0, decision


def check_errors(client: openai.OpenAI) -> None:
    def refused(kind, **options):
        try:
            ask(client, "Hi", **options)
        except kind as error:
            return error
        raise AssertionError(f"{options} is not refused")

    assert refused(openai.BadRequestError, n=2).param == "n"
    assert "tools" in str(refused(openai.BadRequestError, tools=[{"type": "function", "function": {"name": "f"}}]))
    try:
        client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Hi"}])
        raise AssertionError("another model is not refused")
    except openai.NotFoundError as error:
        assert error.code == "model_not_found", error
    try:
        ask(client.with_options(api_key="wrong"), "Hi")
        raise AssertionError("a wrong token is not refused")
    except openai.AuthenticationError:
        pass


def check_guide(client: openai.OpenAI) -> None:
    """The example of docs/guide/api.md, as it stands there but for address and key."""
    example = re.search(r"```python\n(.*?)```", open("docs/guide/api.md").read(), re.DOTALL).group(1)
    example = example.replace("http://127.0.0.1:9180/v1", str(client.base_url)).replace('"none"', repr(client.api_key))
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/photo.jpg", "wb") as photo:
            photo.write(base64.b64decode(png((200, 0, 0))))
        said = subprocess.run([sys.executable, "-c", example], cwd=folder, capture_output=True, text=True, timeout=TIMEOUT)
    assert said.returncode == 0 and said.stdout.strip(), said


CHECKS = [
    check_models,
    check_images,
    check_video,
    check_stream,
    check_logprobs,
    check_json_schema,
    check_decisions,
    check_errors,
    check_guide,
]


def serve(program: str, home: str) -> tuple[subprocess.Popen, str]:
    """Starts camscribe, and returns it with its address once it is ready."""
    with open(f"{home}/token", "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write("a-token-of-this-test")
    with open(f"{home}/camscribe.toml", "w") as file:
        file.write(f'model.id = "shapes"\nnode.state_dir = "{home}/state"\n[http]\nlisten = "127.0.0.1:0"\n')
        file.write(f'api = true\ntoken_file = "{home}/token"\n')
    log = open(f"{home}/log", "w+")
    child = subprocess.Popen([program, "run", "--config", f"{home}/camscribe.toml"], stderr=log)
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end and child.poll() is None:
        found = re.search(r"questions to the model at (\S+)", open(f"{home}/log").read())
        if found:
            return child, found.group(1)
        time.sleep(0.1)
    child.kill()
    raise AssertionError(f"camscribe does not serve: {open(f'{home}/log').read()}")


def main() -> int:
    failed = 0
    with tempfile.TemporaryDirectory() as home:
        child, address = serve(os.path.abspath(sys.argv[1]), home)
        try:
            # It asks again while the model is loaded, as Retry-After says.
            client = openai.OpenAI(base_url=address, api_key="a-token-of-this-test", max_retries=10, timeout=TIMEOUT)
            for check in CHECKS:
                try:
                    check(client)
                    print(f"ok      {check.__name__}")
                except Exception as error:  # noqa: BLE001 -- each check is told, whatever it fails with
                    failed += 1
                    print(f"failed  {check.__name__}: {type(error).__name__}: {error}")
        finally:
            child.terminate()
            child.wait(TIMEOUT)
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
