#!/usr/bin/env python3
"""Compares camscribe's benchmark with the reference implementation (transformers, SDPA) on the same work.

    cargo build --release --no-default-features --bin bench
    python benches/reference.py --bench target/release/bench --device cpu --shapes 256M --batches 1 --rounds 3
    python benches/reference.py --ours bench.json

`--bench` runs camscribe's benchmark and the reference in turns, each in its own process, so that other load on
the machine affects both. `--ours` reads a document that camscribe's benchmark has written before. The reference
gets a model of the same sizes with random weights, prompts of as many tokens, and camscribe's batch sizes up to
the one with the most clips per second. Nothing is downloaded. The reference's decode loop copies no token to the
CPU before the end, so that a GPU never waits for Python. Prints Markdown: medians, and ratios that are above 1
if camscribe is faster or smaller. Needs torch, torchvision, transformers (5 or later), numpy and pillow.
"""
import argparse, json, os, pathlib, statistics, subprocess, sys, tempfile, time

WALL = {"preprocess_s": "preprocess, s", "vision_s": "vision, s", "prefill_s": "prefill, s",
        "decode_ms_per_token": "decode, ms per token"}
CPU = {"cpu.preprocess_s": "preprocess, CPU s", "cpu.vision_s": "vision, CPU s", "cpu.prefill_s": "prefill, CPU s",
       "cpu.decode_s": "decode, CPU s"}
OVERALL = {"clips_per_s": "clips/s", "first_token_s": "first token, s", "decode_ms_per_token": "ms per token",
         "peak_memory_mb": "memory, MB"}
SHARES = {"vision_share": "vision", "prefill_share": "prefill", "decode_share": "decode"}


# ----------------------------------------------------------------------------- the reference, in its own process

def build(config, dtype, device):
    """The reference's model of these sizes with random weights."""
    import torch
    from transformers import AutoModelForImageTextToText, SmolVLMConfig
    config = SmolVLMConfig(
        vision_config=dict(config["vision"], hidden_act="gelu_pytorch_tanh"),
        text_config=dict(config["text"], model_type="llama", hidden_act="silu", pad_token_id=config["pad_token_id"]),
        scale_factor=config["scale_factor"], image_token_id=config["image_token_id"], tie_word_embeddings=False,
        pad_token_id=config["pad_token_id"])
    with torch.device(device):
        return AutoModelForImageTextToText.from_config(config, dtype=dtype, attn_implementation="sdpa").eval()


def matrix_rate(dtype, device):
    """torch's floating-point operations per second in a large matrix product, measured as camscribe measures its own."""
    import torch
    side, times = (3072, 1) if device == "cpu" else (8192, 50)
    a = torch.randn(side, side, device=device).to(dtype)
    best = float("inf")
    for _ in range(7):
        synchronise(device)
        start = time.perf_counter()
        for _ in range(times):
            a @ a
        synchronise(device)
        best = min(best, (time.perf_counter() - start) / times)
    return 2 * side**3 / best


def synchronise(device):
    import torch
    if device != "cpu":
        torch.cuda.synchronize()


def peak_memory_mb(device):
    import torch
    if device == "cpu":
        status = pathlib.Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) // 1024
    # Counts other processes' memory, but not the free memory that torch caches.
    free, total = torch.cuda.mem_get_info()
    return (total - free - torch.cuda.memory_reserved() + torch.cuda.max_memory_allocated()) >> 20


def one_run(model, processor, work, batch, device):
    """Runs one batch. Returns the wall and CPU seconds of each stage."""
    import numpy, torch
    config = model.config
    side, frames = config.vision_config.image_size, work["frames"]
    t, y, x = numpy.meshgrid(range(frames), range(side), range(side), indexing="ij")
    clips = [numpy.stack([x + t, y, t * 29], axis=-1).astype(numpy.uint8)] * batch
    image_tokens = frames * (side // config.vision_config.patch_size // config.scale_factor) ** 2
    ids = [config.image_token_id] * image_tokens + [1000] * (work["prompt_tokens"] - image_tokens)
    ids = torch.tensor([ids] * batch, device=device)

    def now():
        synchronise(device)
        return numpy.array([time.perf_counter(), time.process_time()])

    t0 = now()
    inputs = processor(videos=clips, do_sample_frames=False, return_tensors="pt", device=device)
    pixels = inputs["pixel_values"].to(device, model.dtype)
    t1 = now()
    features = model.get_image_features(pixels, inputs["pixel_attention_mask"].to(device))
    features = torch.cat(list(features.pooler_output))
    t2 = now()
    vectors = model.get_input_embeddings()(ids)
    vectors = vectors.masked_scatter((ids == config.image_token_id)[..., None], features.to(vectors.dtype))
    out = model(inputs_embeds=vectors, use_cache=True, logits_to_keep=1)
    token = out.logits[:, -1].argmax(-1, keepdim=True)
    t3 = now()
    for _ in range(work["new_tokens"] - 1):
        out = model(input_ids=token, past_key_values=out.past_key_values, use_cache=True)
        token = out.logits[:, -1].argmax(-1, keepdim=True)
    t4 = now()
    stages = ["preprocess_s", "vision_s", "prefill_s", "decode_s"]
    wall, cpu = zip(*[t1 - t0, t2 - t1, t3 - t2, t4 - t3])
    return dict(zip(stages, map(float, wall)), cpu=dict(zip(stages, map(float, cpu))))


def reference(work):
    """Times the reference in this process and prints one line of JSON."""
    import torch, torchvision, transformers
    from transformers import SmolVLMVideoProcessor
    device, dtype = work["device"], {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[work["dtype"]]
    torch.manual_seed(1)
    if device == "cpu":
        torch.set_num_threads(work["threads"])
    else:
        torch.cuda.set_device(device)
    rate = matrix_rate(dtype, device)
    if device != "cpu":
        torch.cuda.empty_cache()
    tile = {"longest_edge": work["config"]["vision"]["image_size"]}
    processor = SmolVLMVideoProcessor(size=tile, max_image_size=tile)
    model = build(work["config"], dtype, device)
    batches, stopped = [], None
    with torch.no_grad():
        for batch in work["batches"]:
            if device == "cpu":
                pathlib.Path("/proc/self/clear_refs").write_text("5")
            else:
                torch.cuda.reset_peak_memory_stats()
            try:
                runs = [one_run(model, processor, work, batch, device) for _ in range(work["repeat"] + 1)][1:]
            except torch.cuda.OutOfMemoryError:
                stopped = f"a batch of {batch} does not fit into the device's memory"
                break
            total = lambda run: run["preprocess_s"] + run["vision_s"] + run["prefill_s"] + run["decode_s"]
            run = sorted(runs, key=total)[len(runs) // 2]
            batches.append(run | dict(
                batch=batch, clips_per_s=batch / total(run), first_token_s=total(run) - run["decode_s"],
                decode_ms_per_token=1000 * run["decode_s"] / (work["new_tokens"] - 1),
                peak_memory_mb=peak_memory_mb(device)))
            print(f"  batch {batch}: {batch / total(run):.3f} clips/s", file=sys.stderr)
    print(json.dumps(dict(dtype=work["dtype"], batches=batches, stopped=stopped, matrix_tflop_per_s=rate / 1e12,
                          versions=f"transformers {transformers.__version__}, torch {torch.__version__}, "
                                   f"torchvision {torchvision.__version__}")))


# ----------------------------------------------------------------------------- running both in turns

def busy_seconds():
    """CPU seconds that the whole machine has spent: user, nice, system and interrupts; not idle, waiting or stolen."""
    fields = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return sum(int(fields[i]) for i in (0, 1, 2, 5, 6)) / os.sysconf("SC_CLK_TCK")


def run(command, threads, **options):
    """Runs a program, pinned to `threads` cores unless that is 0. Returns its output, and the share of the machine's CPU
    time that other programs took meanwhile."""
    env, pin = dict(os.environ), None
    if threads:
        env |= dict(RAYON_NUM_THREADS=str(threads), OMP_NUM_THREADS=str(threads))
        cores = sorted(os.sched_getaffinity(0))[:threads]
        pin = lambda: os.sched_setaffinity(0, cores)
    start, busy, before = time.monotonic(), busy_seconds(), os.times()
    out = subprocess.run(command, env=env, check=True, preexec_fn=pin, text=True, **options).stdout
    after = os.times()
    own = after.children_user + after.children_system - before.children_user - before.children_system
    return out, max(0, busy_seconds() - busy - own) / (time.monotonic() - start) / os.cpu_count()


def run_camscribe(a, shape, dtype):
    """Runs camscribe's benchmark on one shape and returns its document."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "bench.json"
        _, others = run([a.bench, "--shapes", shape, "--batches", a.batches, "--frames", str(a.frames), "--new-tokens",
             str(a.new_tokens), "--repeat", str(a.repeat), "--periods", "0", "--device", a.device, "--dtype", dtype,
             "--json", str(file)], a.threads, stdout=sys.stderr)
        document = json.loads(file.read_text())
    document["shapes"][0]["others"] = others
    return document


def run_reference(a, document, shape, dtype):
    """Runs the reference on the shape, batches and prompts of one of camscribe's results."""
    best = max(shape["batches"], key=lambda row: row["clips_per_s"])["batch"]
    work = dict(config=shape["config"], prompt_tokens=shape["prompt_tokens"], frames=document["frames"],
                new_tokens=document["new_tokens"], repeat=document["repeat"], device=document["device"], dtype=dtype,
                threads=threads(a, document),
                batches=[row["batch"] for row in shape["batches"] if row["batch"] <= best])
    print(f"reference {dtype}, {shape['shape']}:", file=sys.stderr)
    command = [sys.executable, __file__, "--reference"]
    out, others = run(command, work["threads"], input=json.dumps(work), stdout=subprocess.PIPE)
    return json.loads(out.splitlines()[-1]) | dict(others=others)


def threads(a, document):
    """Threads of the reference on the CPU: as many as camscribe had. 0 on a GPU."""
    return (a.threads or document["threads"]) if document["device"] == "cpu" else 0


def collect(a, failed):
    """Yields for each shape its name, {program: [its report in each round]}, and camscribe's documents. Appends a message
    to `failed` for each run of the reference that fails."""
    given = [json.loads(pathlib.Path(file).read_text()) for file in a.ours]
    names = a.shapes.split(",") if a.bench else [s["shape"] for s in given[0]["shapes"] if s["batches"]]
    for name in names:
        results, documents = {}, []
        for number in range(a.rounds):
            print(f"{name}, round {number + 1} of {a.rounds}", file=sys.stderr)
            fresh = [run_camscribe(a, name, dtype) for dtype in a.dtypes.split(",")] if a.bench else given
            documents += fresh if a.bench or not documents else []
            shapes = [(d, s) for d in fresh for s in d["shapes"] if s["shape"] == name]
            for document, shape in shapes:
                results.setdefault(f"ours {document['dtype']}", []).append(shape)
            on_cpu = fresh[0]["device"] == "cpu"
            for dtype in (a.reference_dtypes or ("f32,bf16" if on_cpu else fresh[0]["dtype"])).split(","):
                try:
                    results.setdefault(f"reference {dtype}", []).append(run_reference(a, *shapes[0], dtype))
                except subprocess.CalledProcessError as error:
                    failed.append(f"{name}: the reference in {dtype} failed (exit code {error.returncode})")
                    print(failed[-1], file=sys.stderr)
        results = {program: reports for program, reports in results.items() if reports}
        for program, reports in results.items():
            quiet = sorted(reports, key=lambda r: r.get("others", 0))
            results[program] = quiet[:a.keep or None]
        yield name, results, documents


# ----------------------------------------------------------------------------- tables

def value(row, key):
    for part in key.split("."):
        row = row[part]
    return row


def median(reports, batch, key):
    """The median over rounds. None if the program did not run this batch or did not measure this value."""
    rows = [row for r in reports for row in r["batches"] if row["batch"] == batch]
    values = [v for v in (value(row, key) for row in rows) if v is not None]
    return statistics.median(values) if values else None


def ratio(key, own, other):
    """The ratio of two values, above 1 if camscribe is better. A dash if the divisor is 0."""
    better, worse = (own, other) if key == "clips_per_s" else (other, own)
    return f"{better / worse:.2f}" if worse else "–"


def overall_table(name, first, other, results):
    """Prints the overall values of every batch: camscribe's beside another program's."""
    print(f"\n{name}, {first} / {other} / ratio\n")
    print("| batch | " + " | ".join(OVERALL.values()) + " |\n|---" + "|---" * len(OVERALL) + "|")
    for batch in [row["batch"] for row in results[first][0]["batches"]]:
        cells = []
        for key in OVERALL:
            own, other_value = (median(results[program], batch, key) for program in (first, other))
            beside = "– / –" if other_value is None else f"{other_value:.4g} / {ratio(key, own, other_value)}"
            cells.append(f"{own:.4g} / {beside}")
        print(f"| {batch} | " + " | ".join(cells) + " |")
    for program in (first, other):
        for why in {r["stopped"] for r in results[program]} - {None}:
            print(f"\n{program}: {why}.")


def stage_table(name, batch, first, results):
    """Prints the values of each stage of one batch: camscribe's beside all other programs'."""
    others = [program for program in results if program != first]
    print(f"\n{name}, batch {batch}\n\n| | " + " | ".join([first] + [f"{p} | ratio" for p in others]) + " |")
    print("|---" * (2 + 2 * len(others)) + "|")
    for key, title in (WALL | CPU | {"peak_memory_mb": "peak memory, MB"}).items():
        own = median(results[first], batch, key)
        if own is None:
            continue
        cells = [f"{own:.4g}"]
        for program in others:
            other = median(results[program], batch, key)
            cells.append("– | –" if other is None else f"{other:.4g} | {ratio(key, own, other)}")
        print(f"| {title} | " + " | ".join(cells) + " |")


def shares(program, results, batch):
    parts = [f"{title} {100 * median(results[program], batch, key):.0f} %" for key, title in SHARES.items()]
    return f"{program}, batch {batch}: " + ", ".join(parts)


def report_shape(name, results):
    first = next(iter(results))
    batches = [row["batch"] for row in results[first][0]["batches"]]
    best = max(batches, key=lambda batch: median(results[first], batch, "clips_per_s"))
    for other in [program for program in results if program != first]:
        overall_table(name, first, other, results)
    for batch in sorted({batches[0], best}):
        stage_table(name, batch, first, results)
    print("\n(camscribe normalises pixels and copies them to the GPU in its vision stage, the reference in its preprocessing.)\n\n"
          "Share of the matrix rate (vision, prefill) and of the bandwidth (decode) measured in the same runs:\n")
    for program in [program for program in results if program.startswith("ours")]:
        print("- " + "; ".join(shares(program, results, batch) for batch in sorted({batches[0], best})))
    for program, reports in results.items():
        if program.startswith("reference"):
            rates = [r["matrix_tflop_per_s"] for r in reports]
            print(f"- {program}: torch's own large matrix product reaches {statistics.median(rates):.4g} TFLOP/s; "
                  f"{reports[0]['versions']}")


def report_rest(found, documents):
    others = [r["others"] for _, results in found for rs in results.values() for r in rs if "others" in r]
    if others:
        print(f"- meanwhile other programs took {100 * min(others):.0f} to {100 * max(others):.0f} % of the CPU time "
              "of the machine")
    for dtype in sorted({document["dtype"] for document in documents}):
        same = [document for document in documents if document["dtype"] == dtype]
        matrix, memory = (statistics.median(d[rate] for d in same)
                          for rate in ("matrix_tflop_per_s", "memory_gb_per_s"))
        print(f"- ours {dtype}: the large matrix product reaches {matrix:.4g} TFLOP/s, memory {memory:.4g} GB/s")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = p.add_mutually_exclusive_group(required=True)
    source.add_argument("--bench", help="our program, run in turns with the reference")
    source.add_argument("--ours", action="append", default=[], help="a document that our program has written")
    source.add_argument("--reference", action="store_true", help=argparse.SUPPRESS)
    p.add_argument("--device", default="cpu", help="with --bench: cpu, cuda or cuda:N")
    p.add_argument("--dtypes", default="auto", help="with --bench: number formats of ours")
    p.add_argument("--reference-dtypes", help="of the reference; by default f32,bf16 on the CPU, else ours")
    p.add_argument("--shapes", default="256M,500M,2.2B", help="with --bench")
    p.add_argument("--batches", default="1", help="with --bench")
    p.add_argument("--frames", type=int, default=8, help="with --bench")
    p.add_argument("--new-tokens", type=int, default=64, help="with --bench")
    p.add_argument("--repeat", type=int, default=1, help="with --bench: timed runs of a batch, after one to warm up")
    p.add_argument("--rounds", type=int, default=1, help="how often every program is run")
    p.add_argument("--keep", type=int, default=0, help="so many rounds of each program count, the quietest; 0: all")
    p.add_argument("--threads", type=int, default=0, help="on the CPU: of every program; 0: one a core")
    p.add_argument("--json", help="where everything that was measured goes")
    a = p.parse_args()
    if a.reference:
        return reference(json.load(sys.stdin))
    if a.bench and a.device == "cpu" and not a.threads:
        a.threads = len(os.sched_getaffinity(0))
    found, documents, failed = [], [], []
    for name, results, fresh in collect(a, failed):
        if not found:
            d = fresh[0]
            print(f"{d['hardware']} ({d['device']}), {a.threads or d['threads']} threads; {d['frames']} frames a clip, "
                  f"{d['new_tokens']} new tokens")
        found.append((name, results))
        documents += [document for document in fresh if document not in documents]
        # Shape by shape, so that a run that is cut short leaves what it has.
        report_shape(name, results)
        sys.stdout.flush()
        if a.json:
            everything = dict(ours=documents, results=[dict(shape=name, programs=results) for name, results in found])
            pathlib.Path(a.json).write_text(json.dumps(everything, indent=1) + "\n")
    report_rest(found, documents)
    for why in failed:
        print(f"- FAILED: {why}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
