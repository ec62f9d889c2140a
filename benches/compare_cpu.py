#!/usr/bin/env python3
"""Our CPU time per stage and peak memory beside the reference implementation's (transformers).

    cargo build --release --no-default-features --bin bench
    python benches/compare_cpu.py --model DIR [--threads 2] [--rounds 3]

Same machine, checkpoint, clip, prompt and threads; every program in a process of its own, taking
turns, so that what else the machine does falls on all of them. Prints a Markdown table of medians and
of ratios (reference / ours: above 1 means that ours is faster, or smaller). Our preprocessing goes
through the reference's first resize edge here, so that both do the same work.
Needs torch, torchvision, transformers, num2words, numpy and pillow: the versions are printed.
"""
import argparse, json, os, pathlib, statistics, subprocess, sys, time

WALL = ["preprocess_s", "vision_s", "prefill_s", "decode_ms_per_token"]
CPU = ["preprocess_cpu_s", "vision_cpu_s", "prefill_cpu_s", "decode_cpu_ms_per_token"]
STAGES = WALL + CPU
TITLES = {"preprocess_s": "preprocess, s", "vision_s": "vision, s", "prefill_s": "prefill, s",
          "decode_ms_per_token": "decode, ms per token", "preprocess_cpu_s": "preprocess, CPU s",
          "vision_cpu_s": "vision, CPU s", "prefill_cpu_s": "prefill, CPU s",
          "decode_cpu_ms_per_token": "decode, CPU ms per token", "peak_rss_mb": "peak memory, MB"}


def reference(a):
    """Times the reference in this process; one line of JSON, as our `bench` prints it."""
    import resource
    import numpy, torch, torchvision, transformers
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from transformers.video_utils import VideoMetadata
    torch.set_num_threads(a.threads)
    processor = AutoProcessor.from_pretrained(a.model)
    t, y, x = numpy.meshgrid(range(a.frames), range(a.side), range(a.side), indexing="ij")
    clip = numpy.stack([x + t, y, t * 29], axis=-1).astype(numpy.uint8)
    meta = VideoMetadata(total_num_frames=a.frames, fps=1.0, width=a.side, height=a.side,
                         duration=float(a.frames), frames_indices=list(range(a.frames)))
    message = {"role": "user", "content": [{"type": "video"},
                                           {"type": "text", "text": "Describe this video in detail."}]}
    text = processor.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[a.reference]
    t0 = time.perf_counter()
    model = AutoModelForImageTextToText.from_pretrained(a.model, dtype=dtype, attn_implementation="sdpa").eval()
    load = time.perf_counter() - t0
    now = lambda: numpy.array([time.perf_counter(), time.process_time()])  # wall, and CPU of all threads
    runs = []
    with torch.no_grad():
        for _ in range(a.repeat):
            t0 = now()
            inputs = processor(text=[text], videos=[clip], video_metadata=[meta], return_tensors="pt")
            t1 = now()
            features = model.get_image_features(inputs["pixel_values"].to(dtype), inputs["pixel_attention_mask"])
            features = torch.cat(features.pooler_output)
            t2 = now()
            ids = inputs["input_ids"]
            vectors = model.get_input_embeddings()(ids)
            image = (ids == model.config.image_token_id)[..., None]
            vectors = vectors.masked_scatter(image, features.to(vectors.dtype))
            out = model(inputs_embeds=vectors, use_cache=True, logits_to_keep=1)
            token = out.logits[:, -1].argmax(-1, keepdim=True)
            t3 = now()
            for _ in range(a.new_tokens - 1):
                out = model(input_ids=token, past_key_values=out.past_key_values, use_cache=True)
                token = out.logits[:, -1].argmax(-1, keepdim=True)
            t4 = now()
            spent = [t1 - t0, t2 - t1, t3 - t2, 1000 * (t4 - t3) / (a.new_tokens - 1)]
            runs.append(dict(zip(STAGES, [float(s[0]) for s in spent] + [float(s[1]) for s in spent])))
    print(json.dumps(dict(dtype=a.reference, prompt_tokens=ids.shape[1], load_s=load, runs=runs,
                          peak_rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                          versions=f"transformers {transformers.__version__}, torch {torch.__version__}, "
                                   f"torchvision {torchvision.__version__}")))


def run(command, threads):
    cores = sorted(os.sched_getaffinity(0))[:threads]
    env = dict(os.environ, RAYON_NUM_THREADS=str(threads), OMP_NUM_THREADS=str(threads))
    done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True,
                          preexec_fn=lambda: os.sched_setaffinity(0, cores))
    return json.loads(done.stdout.splitlines()[-1])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True, help="directory of a checkpoint")
    p.add_argument("--bench", default="target/release/bench", help="our program")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=3, help="how often every program is run")
    p.add_argument("--repeat", type=int, default=2, help="runs within a program; the first warms up and is left out")
    p.add_argument("--frames", type=int, default=8)
    p.add_argument("--side", type=int, default=512)
    p.add_argument("--new-tokens", type=int, default=64)
    p.add_argument("--skip-bf16", action="store_true", help="leave the reference's bf16 out")
    p.add_argument("--reference", choices=["f32", "bf16"], help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.reference:
        return reference(a)

    size = json.loads((pathlib.Path(a.model) / "preprocessor_config.json").read_text())["size"]["longest_edge"]
    common = ["--model", a.model, "--frames", str(a.frames), "--side", str(a.side), "--new-tokens",
              str(a.new_tokens), "--repeat", str(a.repeat)]
    own = [a.bench, *common, "--device", "cpu", "--dtype", "f32"]
    theirs = [sys.executable, __file__, *common, "--threads", str(a.threads), "--reference"]
    programs = {"ours f32": [*own, "--edge", str(size)], "reference f32": [*theirs, "f32"]}
    if not a.skip_bf16:
        programs["reference bf16"] = [*theirs, "bf16"]
    results = {name: [] for name in programs}
    for number in range(a.rounds):
        for name, command in programs.items():
            results[name].append(run(command, a.threads))
            print(f"round {number + 1}, {name}: {json.dumps(results[name][-1]['runs'][-1])}", file=sys.stderr)
    assert len({r["prompt_tokens"] for rs in results.values() for r in rs}) == 1, "prompts differ"

    table = {name: {s: statistics.median(x[s] for r in rs for x in r["runs"][1:] or r["runs"]) for s in STAGES}
             | {"peak_rss_mb": statistics.median(r["peak_rss_mb"] for r in rs)} for name, rs in results.items()}
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "?")
    print(f"{cpu}, {a.threads} threads; {a.frames} frames of {a.side} x {a.side}, "
          f"{results['ours f32'][0]['prompt_tokens']} prompt tokens, {a.new_tokens} new tokens; "
          f"{results['reference f32'][0]['versions']}\n")
    others = [name for name in table if name != "ours f32"]
    print("| | ours f32 | " + " | ".join(f"{name} | ratio" for name in others) + " |")
    print("|---" * (2 + 2 * len(others)) + "|")
    for s in [*STAGES, "peak_rss_mb"]:
        ours = table["ours f32"][s]
        cells = " | ".join(f"{table[n][s]:.3g} | {table[n][s] / ours:.2f}" for n in others)
        print(f"| {TITLES[s]} | {ours:.3g} | {cells} |")


if __name__ == "__main__":
    main()
