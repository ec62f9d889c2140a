"""What every engine of `rivals.py` shares: the model, the clip, the clock. An engine's script hands over `prepare`, which
makes its files once, and `load`, which returns an object with

    vision(pixels)          pixels (frames, 3, side, side), normalised; returns what `prefill` takes
    prefill(ids, features)  starts a new clip; returns the logits of the last token
    step(token)             returns the logits of the next one

The script is given one JSON object on its standard input and prints one.
"""
import json, pathlib, sys, time

sys.path.append(str(pathlib.Path(__file__).parent.parent))
import reference

STAGES = ["vision_s", "prefill_s", "decode_s"]
SEED = 1


def model(config, dtype="float32"):
    """transformers' model of these sizes. The random weights are the same every time."""
    import torch
    torch.manual_seed(SEED)
    return reference.build(config, torch.float32, "cpu").to(getattr(torch, dtype))


def frames(work):
    """The frames of reference.py's clip: (frames, side, side, 3) bytes."""
    import numpy
    count, side = work["frames"], work["config"]["vision"]["image_size"]
    t, y, x = numpy.meshgrid(range(count), range(side), range(side), indexing="ij")
    return numpy.stack([x + t, y, t * 29], axis=-1).astype(numpy.uint8)


def pixels(pictures):
    """Pictures of bytes as the vision tower takes them."""
    import numpy
    return numpy.ascontiguousarray((pictures.astype(numpy.float32).transpose(0, 3, 1, 2) - 127.5) / 127.5)


def token_ids(work):
    """The prompt: all image tokens, then text."""
    import numpy
    images = work["frames"] * tokens_per_frame(work["config"])
    ids = [work["config"]["image_token_id"]] * images + [1000] * (work["prompt_tokens"] - images)
    return numpy.array([ids], dtype=numpy.int64)


def tokens_per_frame(config):
    return (config["vision"]["image_size"] // config["vision"]["patch_size"] // config["scale_factor"]) ** 2


def one_clip(engine, work, picture, ids):
    """Describes one clip. Returns the wall and CPU seconds of each stage."""
    def now():
        return time.perf_counter(), time.process_time()
    times = [now()]
    features = engine.vision(picture)
    times.append(now())
    token = int(engine.prefill(ids, features).argmax())
    times.append(now())
    for _ in range(work["new_tokens"] - 1):
        token = int(engine.step(token).argmax())
    times.append(now())
    wall, cpu = ({stage: after[clock] - before[clock] for stage, before, after in zip(STAGES, times, times[1:])}
                 for clock in (0, 1))
    return wall | dict(cpu=cpu, clip_s=sum(wall.values()))


def measure(engine, work):
    """The median of the timed clips, after one to warm up, and the most memory in use since loading."""
    picture, ids = engine.pictures(work) if hasattr(engine, "pictures") else pixels(frames(work)), token_ids(work)
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    runs = sorted([one_clip(engine, work, picture, ids) for _ in range(work["repeat"] + 1)][1:], key=lambda r: r["clip_s"])
    run = runs[len(runs) // 2]
    return run | dict(decode_ms_per_token=1000 * run["decode_s"] / max(1, work["new_tokens"] - 1),
                      peak_memory_mb=reference.peak_memory_mb("cpu"))


def outputs(engine, work):
    """Saves what the engine makes of the clip: features, and the logits after the prompt and after one more token."""
    import numpy
    picture = engine.pictures(work) if hasattr(engine, "pictures") else pixels(frames(work))
    features = engine.vision(picture)
    first = numpy.array(engine.prefill(token_ids(work), features), dtype=numpy.float32).ravel()
    second = numpy.array(engine.step(1000), dtype=numpy.float32).ravel()
    width = work["config"]["text"]["hidden_size"]
    features = numpy.array(features, dtype=numpy.float32).reshape(-1, width)
    numpy.savez(work["save"], features=features, prompt=first, step=second)
    return {}


def main(prepare, load, versions):
    work = json.load(sys.stdin)
    folder = pathlib.Path(work["folder"])
    if sys.argv[1] == "prepare":
        folder.mkdir(parents=True, exist_ok=True)
        prepare(work, folder)
        report = {}
    else:
        report = {"run": measure, "check": outputs}[sys.argv[1]](load(work, folder), work)
    print(json.dumps(report | dict(versions=versions())))


def clean_versions(*names):
    """The versions of installed packages, as one text."""
    from importlib.metadata import version
    return ", ".join(f"{name} {version(name)}" for name in names)
