#!/usr/bin/env python3
"""Compares camscribe's CPU benchmark with other engines on the same work, in turns.

    cargo build --release --no-default-features --bin bench
    python benches/rivals.py --setup DIR
    python benches/rivals.py --dir DIR --bench target/release/bench --check --frames 1
    python benches/rivals.py --dir DIR --bench target/release/bench --rounds 3

`--setup` makes a virtual environment in DIR and installs the engines from the package index (10 GB with torch's usual build;
llama.cpp is compiled). `--torch-from` takes torch and transformers from another environment's site-packages instead.
Every engine gets a model of the sizes that camscribe's benchmark reports, with the same random weights (camscribe has random
weights of its own), the same frames, as many prompt tokens, and decodes greedily. Each converts the model once, into DIR.
Each runs in its own process, one after the other. `--check` compares what they compute with transformers in f32 instead.
An engine that cannot be installed, or fails, is reported as skipped. Prints Markdown: medians over the rounds. rivals/ has
a file for each engine. The script itself needs nothing but Python.
"""
import argparse, hashlib, json, os, pathlib, platform, re, statistics, subprocess, sys, venv

from reference import run, run_camscribe

SCRIPTS = pathlib.Path(__file__).parent / "rivals"
# What is installed for an engine; of all but the first, transformers' packages are needed too.
PACKAGES = {
    "transformers": ["torch", "torchvision", "transformers", "numpy", "pillow"],
    "openvino": ["openvino", "nncf"],
    "onnxruntime": ["onnxruntime", "onnx", "onnxscript"],
    "llama": ["llama-cpp-python", "gguf"],
}
# Name: script, variant, the variant whose files it takes.
ENGINES = {
    "transformers-f32": ("transformers", "f32", "f32"),
    "transformers-bf16": ("transformers", "bf16", "bf16"),
    "openvino-f32": ("openvino", "f32", "f32"),
    "openvino-bf16": ("openvino", "bf16", "f32"),
    "openvino-int8-static": ("openvino", "int8-static", "int8-static"),
    "openvino-int8-dynamic": ("openvino", "int8-dynamic", "int8-dynamic"),
    "onnxruntime-f32": ("onnxruntime", "f32", "f32"),
    "onnxruntime-int8": ("onnxruntime", "int8", "int8"),
    "llama-f32": ("llama", "f32", "f32"),
    "llama-f16-q8_0": ("llama", "f16-q8_0", "f16-q8_0"),
    "llama-q8_0": ("llama", "q8_0", "q8_0"),
}
FLAGS = ["avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"]
STAGES = {"vision_s": "vision, s", "prefill_s": "prefill, s", "decode_s": "decode, s"}
RATIOS = STAGES | {"decode_ms_per_token": None, "clip_s": "whole clip", "peak_memory_mb": "peak memory"}
HOURS = 2
"""The longest that one engine may take, so that one that hangs does not stop the others."""
QUIET = 0.05
"""The share of the machine that other programs may take. Threads that wait for each other lose far more than that."""


# ----------------------------------------------------------------------------- setting up

def set_up(a):
    """Makes the environment and installs each engine on its own. Writes down why one could not be installed."""
    folder = a.setup.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    python = folder / "venv" / "bin" / "python"
    if not python.exists():
        venv.create(folder / "venv", symlinks=True, with_pip=True)
    given, chosen = {}, {"transformers"} | {ENGINES[name][0] for name in a.engines}
    if a.torch_from:
        home = subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
                              capture_output=True, text=True, check=True).stdout.strip()
        pathlib.Path(home, "torch_from.pth").write_text(f"{a.torch_from.resolve()}\n")
        given["transformers"] = "taken from another environment"
    state = folder / "setup.json"
    failures = json.loads(state.read_text()) if state.exists() else dict.fromkeys(PACKAGES, "was not set up")
    for engine, packages in PACKAGES.items():
        if engine not in chosen:
            continue
        failures.pop(engine, None)
        print(f"{engine}: {given.get(engine, 'installing')}", file=sys.stderr, flush=True)
        if engine in given:
            continue
        env = os.environ | {"CMAKE_ARGS": "-DGGML_NATIVE=ON " + os.environ.get("CMAKE_ARGS", "")}
        log = folder / f"setup-{engine}.log"
        with open(log, "w") as out:
            code = subprocess.run([python, "-m", "pip", "install", *packages], env=env, stdout=out, stderr=out).returncode
        if code:
            failures[engine] = f"could not be installed: {last_line(log.read_text(errors='replace'))}"
            print(f"{engine} {failures[engine]} (its output: {log})", file=sys.stderr)
    state.write_text(json.dumps(failures))
    return bool(failures.keys() & chosen)


def last_line(text):
    """The line of a failed program's output that says most: the last that names an error, else the last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no message"]
    errors = [line for line in lines if re.match(r"(\w+\.)*\w*(error|exception|abort)\w*\b", line, re.IGNORECASE)]
    return (errors or lines)[-1][:300]


# ----------------------------------------------------------------------------- running one engine

class Skipped(Exception):
    """Why an engine has no result."""


def call(a, name, verb, work):
    """Runs an engine's script. Returns what it reports, with the share of the machine that others took meanwhile."""
    script = SCRIPTS / f"with_{ENGINES[name][0]}.py"
    print(f"  {name}: {verb}", file=sys.stderr, flush=True)
    try:
        out, others = run([a.dir / "venv" / "bin" / "python", script, verb], a.threads if verb == "run" else 0,
                          input=json.dumps(work), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=HOURS * 3600)
    except subprocess.CalledProcessError as error:
        (a.dir / f"{name}.log").write_text(error.stderr or "")
        why = last_line(error.stderr or "") if error.returncode > 0 else f"signal {-error.returncode}"
        raise Skipped(f"{verb} failed: {why}") from None
    except subprocess.TimeoutExpired:
        raise Skipped(f"{verb} took longer than {HOURS} hours") from None
    return json.loads(out.splitlines()[-1]) | dict(others=others)


def work_of(a, name, document):
    """What an engine is given: the sizes and the prompt of camscribe's document."""
    shape = document["shapes"][0]
    script, variant, files = ENGINES[name]
    config, label = shape["config"], shape["shape"]
    if a.layers:
        small = {part: config[part] | dict(num_hidden_layers=a.layers) for part in ("vision", "text")}
        config, label = config | small, f"{label}-{a.layers}-layers"
    return dict(config=config, prompt_tokens=shape["prompt_tokens"], frames=document["frames"],
                new_tokens=document["new_tokens"], repeat=a.repeat, threads=a.threads, variant=variant,
                folder=str(a.dir / "models" / f"{label}-{script}-{files}"))


def prepare(a, name, work):
    """Converts the model for an engine, unless that is done: for the same sizes, by the same scripts."""
    script, variant, files = ENGINES[name]
    if variant == "bf16" and script == "openvino" and not {"avx512_bf16", "amx_bf16"} & set(processor()[1]):
        raise Skipped("this processor does not multiply bf16")
    sources = [SCRIPTS / "work.py", SCRIPTS / "modules.py", SCRIPTS / f"with_{script}.py"]
    state = hashlib.sha256(json.dumps(work["config"], sort_keys=True).encode())
    for source in sources:
        state.update(source.read_bytes())
    mark = pathlib.Path(work["folder"]) / "made-from"
    if not mark.exists() or mark.read_text() != state.hexdigest():
        call(a, name, "prepare", work | dict(variant=files))
        mark.write_text(state.hexdigest())


def run_engine(a, name, document, skipped, verb="run", **more):
    """An engine's report, or None after noting why there is none. What was skipped once is not tried again."""
    try:
        if name in skipped:
            return None
        failures = json.loads((a.dir / "setup.json").read_text())
        for needed in ("transformers", ENGINES[name][0]):
            if needed in failures:
                raise Skipped(f"{needed} {failures[needed]}")
        work = work_of(a, name, document) | more
        prepare(a, name, work)
        return call(a, name, verb, work)
    except Skipped as why:
        skipped[name] = str(why)
        print(f"  {name}: skipped: {why}", file=sys.stderr)


# ----------------------------------------------------------------------------- the machine

def processor():
    """The processor's name, and its flags that matter here."""
    text = pathlib.Path("/proc/cpuinfo").read_text()
    field = lambda key: (re.search(rf"^{key}\s*:\s*(.*)$", text, re.MULTILINE) or [None, ""])[1]
    return field("model name") or platform.machine(), [flag for flag in FLAGS if flag in field("flags").split()]


def heading(a, document):
    name, flags = processor()
    shape = document["shapes"][0]
    print(f"{name} ({', '.join(flags)}), {a.threads} of {os.cpu_count()} cores; {shape['shape']}, {document['frames']} "
          f"frames, {shape['prompt_tokens']} prompt tokens, {document['new_tokens']} new tokens, rounds: {a.rounds}\n")
    if a.layers:
        print(f"**A rehearsal: the other engines have only {a.layers} layers, so their times and ratios mean nothing.**\n")


# ----------------------------------------------------------------------------- comparing times

def ours(shape):
    """The only batch of camscribe's result, with the names that the engines use."""
    row = shape["batches"][0]
    return row | dict(clip_s=1 / row["clips_per_s"], others=shape["others"])


def median(reports, key, clock=None):
    return statistics.median((r["cpu"] if clock else r)[key] for r in reports)


def compare(a):
    results, versions, skipped, document = {}, {}, {}, None
    for number in range(a.rounds):
        print(f"round {number + 1} of {a.rounds}", file=sys.stderr)
        for dtype in ("f32", "q8"):
            document = run_camscribe(a, a.shape, dtype)
            results.setdefault(f"camscribe {dtype}", []).append(ours(document["shapes"][0]))
            versions["camscribe"] = f"camscribe {document['version']}"
        for name in a.engines:
            report = run_engine(a, name, document, skipped)
            if report:
                results.setdefault(name, []).append(report)
                versions[ENGINES[name][0]] = report["versions"]
            if a.json:  # After each, so that a run that is cut short leaves what it has.
                everything = dict(results=results, skipped=skipped, versions=versions)
                a.json.write_text(json.dumps(everything, indent=1) + "\n")
    heading(a, document)
    others = [r["others"] for reports in results.values() for r in reports]
    if max(others) > QUIET:
        print(f"**Other programs took up to {100 * max(others):.0f} % of the machine's CPU time, and not from all engines "
              "alike: the times and ratios do not count.**\n")
    print_times(a, results, skipped)
    for base in ("camscribe f32", "camscribe q8"):
        print_ratios(a, results, base)
    print()
    print(f"- {'; '.join(versions.values())}")
    print(f"- others: the share of the machine's CPU time that other programs took meanwhile, {100 * min(others):.0f} to "
          f"{100 * max(others):.0f} %; load average at the end {os.getloadavg()[0]:.1f}, with this program's own")
    print("- the whole clip is preprocessing (camscribe only; the others get normalised pixels), vision, prefill, decode")
    for name in (name for name in a.engines if name in skipped):
        print(f"- {name}: skipped: {skipped[name]}")


def print_times(a, results, skipped):
    """One row an engine. Seconds of CPU time stand in brackets."""
    print("| | " + " | ".join(f"{title} (CPU s)" for title in STAGES.values())
          + " | ms per token | whole clip, s | peak MB | others, % |\n|---" + "|---" * (len(STAGES) + 4) + "|")
    for name in ["camscribe f32", "camscribe q8", *a.engines]:
        if name not in results:
            print(f"| {name} | skipped: {skipped[name]} |" + " |" * (len(STAGES) + 3))
            continue
        reports = results[name]
        cells = [f"{median(reports, key):.3g} ({median(reports, key, 'cpu'):.3g})" for key in STAGES]
        cells += [f"{median(reports, key):.3g}" for key in ("decode_ms_per_token", "clip_s")]
        cells += [f"{median(reports, 'peak_memory_mb'):.0f}", f"{100 * median(reports, 'others'):.0f}"]
        print(f"| {name} | " + " | ".join(cells) + " |")


def print_ratios(a, results, base):
    keys = [key for key, title in RATIOS.items() if title]
    print(f"\nDivided by {base} (above 1: camscribe is faster, or smaller)\n\n| | "
          + " | ".join(RATIOS[key].removesuffix(", s") for key in keys) + " |\n|---" + "|---" * len(keys) + "|")
    for name in (name for name in a.engines if name in results):
        pairs = [(median(results[name], key), median(results[base], key)) for key in keys]
        print(f"| {name} | " + " | ".join(f"{rival / own:.2f}" if own else "–" for rival, own in pairs) + " |")


# ----------------------------------------------------------------------------- comparing outputs

COMPARE = """
import json, sys, numpy
first, *others = map(numpy.load, sys.argv[1:])
print(json.dumps([[[float(abs(o[k] - first[k]).max()), float(abs(first[k]).max())] for k in first] for o in others]))
"""


def check(a):
    """Compares each engine's features and logits with transformers' in f32. Returns whether one in f32 is far off."""
    document, skipped, wrong = run_camscribe(a, a.shape, "q8"), {}, False
    names = ["transformers-f32"] + [name for name in a.engines if name != "transformers-f32"]
    file = lambda name: str(a.dir / f"{name}.npz")
    done = [name for name in names if run_engine(a, name, document, skipped, "check", save=file(name)) is not None]
    heading(a, document)
    print("Greatest difference from transformers in f32, and as a share of its greatest value\n\n"
          "| | features | logits after the prompt | logits after one more token |\n|---|---|---|---|")
    found = []
    if done and done[0] == "transformers-f32":
        out = subprocess.run([a.dir / "venv" / "bin" / "python", "-c", COMPARE, *map(file, done)], check=True,
                             stdout=subprocess.PIPE, text=True).stdout
        found = json.loads(out)
    for name, pairs in zip(done[1:], found):
        far = name.endswith("-f32") and any(not most <= 0.001 * scale for most, scale in pairs)
        wrong |= far
        print(f"| {name} | " + " | ".join(f"{most:.2g} ({100 * most / scale:.2g} %)" for most, scale in pairs)
              + f" |{' **WRONG**' if far else ''}")
    for name, why in skipped.items():
        print(f"| {name} | skipped: {why} | | |")
    return wrong


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--setup", type=pathlib.Path, metavar="DIR", help="install the engines there, and end")
    p.add_argument("--torch-from", type=pathlib.Path, help="with --setup: site-packages with torch and transformers")
    p.add_argument("--dir", type=pathlib.Path, help="where --setup installed")
    p.add_argument("--bench", help="camscribe's benchmark")
    p.add_argument("--engines", default=",".join(ENGINES), help="to install or run: names, or beginnings of names, of %(default)s")
    p.add_argument("--check", action="store_true", help="compare outputs, not times")
    p.add_argument("--shape", default="256M")
    p.add_argument("--frames", type=int, default=8)
    p.add_argument("--new-tokens", type=int, default=64)
    p.add_argument("--layers", type=int, help="only so many layers for the other engines: a rehearsal")
    p.add_argument("--repeat", type=int, default=1, help="timed clips in a process, after one to warm up")
    p.add_argument("--rounds", type=int, default=1, help="how often every engine is run")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--json", type=pathlib.Path, help="where everything that was measured goes")
    a = p.parse_args()
    wanted = a.engines.split(",")
    unknown = [w for w in wanted if not any(name.startswith(w) for name in ENGINES)]
    if unknown:
        p.error(f"no engine is called {', '.join(unknown)}")
    a.engines = [name for name in ENGINES if any(name.startswith(w) for w in wanted)]
    if a.setup:
        return set_up(a)
    if not (a.dir and a.bench):
        p.error("give --setup, or --dir and --bench")
    a.dir, a.batches, a.device = a.dir.resolve(), "1", "cpu"
    if not (a.dir / "setup.json").exists():
        p.error(f"{a.dir} has no environment yet: run --setup {a.dir}")
    return check(a) if a.check else compare(a)


if __name__ == "__main__":
    sys.exit(main())
