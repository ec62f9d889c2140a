#!/usr/bin/env python3
"""What the reference implementation makes of the shapes model, for the tests of other implementations.

  golden.py MODEL_FOLDER OUT_FOLDER

OUT/golden/shapes/<case>.json and .safetensors: pictures from an integer formula (`frame`), and on them token ids,
pixels, intermediate tensors, logits and greedy tokens. The pictures mean nothing to the model; they catch slips in
the arithmetic.

OUT/shapes/held_out.json: clips of combinations that were never trained, drawn by whole-number rules (`paint`), with
questions, the right answers and what the reference says, token by token, with float32 weights.
"""
import argparse, hashlib, json, os, pathlib, re

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch

import evaluate, shapes

STEPS = 32  # greedy tokens at most
WHOLE_VISION = 8  # cases with up to this many pictures store the vision tower's output, not only the connector's


def sha256(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


# ----------------------------------------------------------------------------- pictures from a formula

def frame(t, h, w):
    """Deterministic test picture, uint8 (h, w, 3). All arithmetic is wrapping 32-bit unsigned.

    base  = x*(3+c) + y*(5-c) + 37*t + ((x*y) >> (4+c))
    noise = ((x*73856093) ^ (y*19349663) ^ (t*83492791) ^ (c*2654435761)) >> 13 & 31
    v     = (base + noise) & 255, and 255 - v where ((x>>5) + (y>>5) + t) is odd
    """
    y, x, c = np.meshgrid(*(np.arange(n, dtype=np.uint32) for n in (h, w, 3)), indexing="ij")
    u = np.uint32
    t = u(t)
    with np.errstate(over="ignore"):
        base = x * (c + u(3)) + y * (u(5) - c) + t * u(37) + ((x * y) >> (c + u(4)))
        noise = (((x * u(73856093)) ^ (y * u(19349663)) ^ (t * u(83492791)) ^ (c * u(2654435761))) >> u(13)) & u(31)
        v = (base + noise) & u(255)
        odd = (((x >> u(5)) + (y >> u(5)) + t) & u(1)).astype(bool)
    return np.where(odd, u(255) - v, v).astype(np.uint8)


def video(n, h, w, fps, step, duration, first=0):
    return dict(kind="video", n=n, h=h, w=w, fps=fps, frames_indices=[round(i * step * fps) for i in range(n)],
                duration=duration, first=first)


def user(*blocks):
    return {"role": "user", "content": [b if isinstance(b, dict) else {"type": "text", "text": b} for b in blocks]}


VIDEO, IMAGE = {"type": "video"}, {"type": "image"}
PICTURE = dict(kind="image", h=200, w=300, first=3)
CASES = {
    "video2_portrait": dict(messages=[[user(VIDEO, "What happens?")]], media=[video(2, 720, 405, 25.0, 1.2, 2.0)]),
    "video8_landscape": dict(messages=[[user(VIDEO, "Describe this video in detail.")]],
                             media=[video(8, 270, 480, 29.97, 1.0, 8.008)]),
    "video12_small": dict(messages=[[user(VIDEO, "Is there a red circle?")]], media=[video(12, 60, 100, 10.0, 0.5, 6.0)]),
    "separate_2_and_5": dict(messages=[[user(VIDEO, "What happens?")],
                                       [user(VIDEO, "Does the blue square move to the left? Answer yes or no.")]],
                             separate=True, media=[video(2, 60, 100, 10.0, 1.0, 2.0),
                                                   video(5, 100, 60, 10.0, 1.0, 5.0, first=9)]),
    "image_split": dict(messages=[[user(IMAGE, "Can you describe this image?")]], media=[PICTURE]),
    "image_nosplit": dict(messages=[[user(IMAGE, "Can you describe this image?")]], splitting=False, media=[PICTURE]),
    "text_only": dict(messages=[[user("Tell me a story about 3 cats in 2024.")]], media=[]),
}


def prepare(processor, case):
    """The real processor on one case: the model's inputs and what to say about them. A case marked `separate` has its
    clips processed one by one and put together here, because the processor's own batching words the number of frames
    of every clip after the longest one."""
    from PIL import Image
    from transformers.video_utils import VideoMetadata
    if case.get("separate"):
        parts = [prepare(processor, dict(case, separate=False, messages=[m], media=[v]))
                 for m, v in zip(case["messages"], case["media"])]
        return collate([p[0] for p in parts], processor.tokenizer.pad_token_id), \
            {k: [p[1][k][0] for p in parts] for k in parts[0][1]}
    texts = [processor.apply_chat_template(m, add_generation_prompt=True, tokenize=False) for m in case["messages"]]
    videos = [m for m in case["media"] if m["kind"] == "video"]
    images = [m for m in case["media"] if m["kind"] == "image"]
    arguments = dict(text=texts, return_tensors="pt", padding=True)
    if videos:
        arguments["videos"] = [np.stack([frame(v["first"] + i, v["h"], v["w"]) for i in range(v["n"])]) for v in videos]
        arguments["video_metadata"] = [
            VideoMetadata(total_num_frames=max(v["frames_indices"]) + 1, fps=v["fps"], width=v["w"], height=v["h"],
                          duration=v["duration"], frames_indices=v["frames_indices"]) for v in videos]
    if images:
        arguments["images"] = [[Image.fromarray(frame(i["first"], i["h"], i["w"]))] for i in images]
        if "splitting" in case:
            arguments["do_image_splitting"] = case["splitting"]
    inputs = processor(**arguments)
    prompts = [processor.tokenizer.decode(ids[mask > 0]) for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"])]
    fold = lambda p: re.sub(r"(<image>)+", lambda m: f"<image>*{len(m[0]) // 7}", p)
    return inputs, {"template_text": texts, "prompt_text": prompts, "prompt_short": [fold(p) for p in prompts]}


def collate(parts, pad_id):
    """Token ids are padded on the left, frames with zeros at the end: the model drops all-zero frames."""
    from torch.nn.functional import pad
    length = max(p["input_ids"].shape[1] for p in parts)
    frames = max(p["pixel_values"].shape[1] for p in parts)
    left = lambda x, v: pad(x, (length - x.shape[1], 0), value=v)
    tail = lambda x: pad(x, (0, 0) * (x.ndim - 2) + (0, frames - x.shape[1]))
    return {"input_ids": torch.cat([left(p["input_ids"], pad_id) for p in parts]),
            "attention_mask": torch.cat([left(p["attention_mask"], 0) for p in parts]),
            "pixel_values": torch.cat([tail(p["pixel_values"]) for p in parts]),
            "pixel_attention_mask": torch.cat([tail(p["pixel_attention_mask"]) for p in parts])}


@torch.no_grad()
def capture(model, inputs):
    """One forward pass with the intermediate tensors that are worth comparing."""
    seen, hooks = {}, []

    def keep(module, name):
        def note(_module, _arguments, out):
            out = out[0] if isinstance(out, tuple) else out
            seen.setdefault(name, getattr(out, "last_hidden_state", out).float())
        hooks.append(module.register_forward_hook(note))

    vision, text = model.model.vision_model, model.model.text_model
    keep(vision.embeddings, "vision_embeddings")
    for i, layer in enumerate(vision.encoder.layers):
        keep(layer, f"vision_layer{i}")
    keep(vision.post_layernorm, "vision_out")
    keep(model.model.connector, "connector_out")
    for i, layer in enumerate(text.layers):
        keep(layer, f"text_layer{i}")
    keep(text.norm, "text_norm")
    position_ids = (inputs["attention_mask"].long().cumsum(-1) - 1).clamp(min=0)
    out = model(**inputs, position_ids=position_ids, use_cache=False, logits_to_keep=1)
    for h in hooks:
        h.remove()
    seen["logits_last"] = out.logits[:, -1].float()
    return seen


@torch.no_grad()
def greedy(model, inputs):
    """Greedy ids (rows that end early are filled with the padding id), logits, and the lead of the best over the
    second best (0 after a row's end)."""
    out = model.generate(**inputs, do_sample=False, max_new_tokens=STEPS, output_logits=True, return_dict_in_generate=True)
    ids, logits = out.sequences[:, inputs["input_ids"].shape[1]:], torch.stack(out.logits, 1).float()
    end = ids == model.generation_config.eos_token_id
    alive = end.cumsum(1) - end.long() == 0
    top = logits.topk(2, dim=-1).values
    return ids, logits, (top[..., 0] - top[..., 1]) * alive, alive


def run_case(models, processor, name, case, about, out):
    from safetensors.torch import save_file
    inputs, info = prepare(processor, case)
    inputs = dict(inputs)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    tensors = {"input_ids": ids, "attention_mask": mask}
    frames = 0
    if "pixel_values" in inputs:
        pixels = inputs["pixel_values"]  # exactly (byte - 127.5) / 127.5, so the bytes say everything
        u8 = (pixels * 127.5 + 127.5).round().to(torch.uint8)
        real = (pixels != 0).flatten(2).any(-1)
        assert torch.equal((u8[real].float() - 127.5) / 127.5, pixels[real])
        frames = int(real.sum())
        info |= {"pixel_values_shape": list(pixels.shape), "real_frames": real.sum(1).tolist(),
                 "pixel_u8_sha256": [[sha256(f.numpy()) for f in b[r]] for b, r in zip(u8, real)]}
        tensors["pixel_u8"] = u8[real]
    seen, run = {}, {}
    for dtype, model in models.items():
        cast = {k: v.to(model.dtype) if k == "pixel_values" else v for k, v in inputs.items()}
        seen[dtype], run[dtype] = capture(model, cast), greedy(model, cast)
    want, (tokens, logits, margin, alive) = seen["float32"], run["float32"]
    for key, x in want.items():
        if key.startswith("text_"):
            tensors[key + "_last"] = x[:, -1]  # the last position of every sequence
        elif frames <= (2 if key.startswith("vision_layer") else WHOLE_VISION) or not key.startswith("vision_"):
            tensors[key] = x
    tensors |= {"greedy_ids": tokens, "greedy_margin": margin, "greedy_logits": logits,
                "logits_last_bf16": seen["bfloat16"]["logits_last"].to(torch.bfloat16),
                "greedy_ids_bf16": run["bfloat16"][0]}
    error = {k: (seen["bfloat16"][k] - want[k]).abs() for k in ("logits_last", "vision_out", "connector_out") if k in want}
    same = [next((i for i, (a, b) in enumerate(zip(x, y)) if a != b), min(len(x), len(y)))
            for x, y in zip(run["bfloat16"][0].tolist(), tokens.tolist())]
    info |= {"messages": case["messages"], "media": case["media"], "splitting": case.get("splitting"),
             "n_tokens": mask.sum(1).tolist(), "n_image_tokens": (ids == processor.image_token_id).sum(1).tolist(),
             "greedy_ids": tokens.tolist(),
             "greedy_text": processor.tokenizer.batch_decode(tokens, skip_special_tokens=True),
             "greedy_distinct": [len(set(x)) for x in tokens.tolist()],
             "greedy_min_margin": round(float(margin[alive].min()), 5),
             "logits_abs_max": round(float(want["logits_last"].abs().max()), 4),
             "top5_last": want["logits_last"].topk(5).indices.tolist(),
             "tolerance": {"bf16_vs_f32": {
                 "logits_max_abs_diff": float(error["logits_last"].max()),
                 "logits_mean_abs_diff": float(error["logits_last"].mean()),
                 "same_argmax": bool((seen["bfloat16"]["logits_last"].argmax(-1) == want["logits_last"].argmax(-1)).all()),
                 **{k + "_max_abs_diff": float(v.max()) for k, v in error.items() if k != "logits_last"},
                 "greedy_equal_prefix": same}}}
    info |= about
    save_file({k: v.contiguous() for k, v in tensors.items()}, out / f"{name}.safetensors")
    (out / f"{name}.json").write_text(json.dumps(info, indent=1, ensure_ascii=False) + "\n")
    print(f"{name}: {info['n_tokens']} tokens, smallest margin {info['greedy_min_margin']}, {info['greedy_text']}", flush=True)


# ----------------------------------------------------------------------------- clips with a meaning

RULES = """Frame: `size` is [width, height], every pixel `background`; then, for each object in order whose `centres` entry
of this frame is [cx, cy] and not null, with integers dx = x - cx, dy = y - cy and r = `radius`, a pixel (x, y) becomes
`rgb` if: circle: dx*dx + dy*dy <= r*r; square: 10*|dx| <= 9*r and 10*|dy| <= 9*r; triangle: 2*dy <= r and
26*|dx| <= 15*(dy + r). `frame_sha256`: of each frame's bytes (row, column, RGB). `pixel_u8_sha256`: of each frame after
the processor's two resizes, first to longest edge `video_edge`, bytes in the order channel, row, column. `greedy_ids`
ends with the end token; `greedy_text` is without it; `right` is what the answer should be; `min_margin` is the
smallest lead of the chosen token's logit over the next one."""


def plan(clip):
    """A clip in whole pixels of the full-size picture."""
    scale = max(clip.size) / shapes.SIDE
    moments, objects = clip.moments(), []
    for o in clip.objects:
        centres = np.rint(o.path(moments) * scale).astype(int).tolist()
        objects.append({"shape": o.shape, "rgb": shapes.COLOUR_RGB[o.colour], "radius": round(o.radius * scale),
                        "centres": [c if s else None for c, s in zip(centres, o.shown(moments).tolist())]})
    return {"size": list(clip.size), "background": shapes.GROUND_RGB[clip.background], "times": clip.times.tolist(),
            "duration": float(clip.duration), "objects": objects}


def paint(plan):
    """The frames by the rules above, uint8 (frames, height, width, 3)."""
    w, h = plan["size"]
    x, y = np.arange(w), np.arange(h)[:, None]
    out = np.empty((len(plan["times"]), h, w, 3), np.uint8)
    out[:] = plan["background"]
    for o in plan["objects"]:
        r = o["radius"]
        for picture, centre in zip(out, o["centres"]):
            if centre is None:
                continue
            dx, dy = x - centre[0], y - centre[1]
            if o["shape"] == "circle":
                inside = dx * dx + dy * dy <= r * r
            elif o["shape"] == "square":
                inside = (10 * abs(dx) <= 9 * r) & (10 * abs(dy) <= 9 * r)
            else:
                inside = (2 * dy <= r) & (26 * abs(dx) <= 15 * (dy + r))
            picture[inside] = o["rgb"]
    return out


def run_held_out(model, processor, about, path, count=30, seed=777):
    clips, right = [], {"describe": [0, 0], "yes_no": [0, 0]}
    for clip, asked in evaluate.test_clips(seed, count):
        made = plan(clip)
        frames = paint(made)
        made["scene"] = shapes.describe(clip)
        made["frame_sha256"] = [sha256(f) for f in frames]
        made["questions"] = []
        for kind, question, answer in asked:
            inputs = evaluate.prepare(processor, frames, clip.times, clip.duration, question)
            ids, _, margin, _ = greedy(model, inputs)
            text = processor.tokenizer.decode(ids[0], skip_special_tokens=True)
            made["questions"].append({"kind": kind, "question": question, "right": answer, "greedy_ids": ids[0].tolist(),
                                      "greedy_text": text, "min_margin": round(float(margin.min()), 4)})
            cell = right["describe" if kind == "describe" else "yes_no"]
            cell[0] += text.strip() == answer
            cell[1] += 1
        u8 = (inputs["pixel_values"][0] * 127.5 + 127.5).round().to(torch.uint8)
        made["pixel_u8_sha256"] = [sha256(f.numpy()) for f in u8]
        clips.append(made)
    dump = lambda x: json.dumps(x, ensure_ascii=False)
    body = ",\n".join(f"  {dump(c)}" for c in clips)
    head = {"rules": " ".join(RULES.split()), **about, "reference_right": {k: f"{a}/{b}" for k, (a, b) in right.items()}}
    path.write_text("{\n" + "".join(f" {dump(k)}: {dump(v)},\n" for k, v in head.items()) + f' "clips": [\n{body}\n ]\n}}\n')
    smallest = sorted(q["min_margin"] for c in clips for q in c["questions"])[:3]
    print(f"{len(clips)} held-out clips, right {head['reference_right']}, smallest margins {smallest}", flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("folder", type=pathlib.Path)
    ap.add_argument("out", type=pathlib.Path)
    ap.add_argument("--threads", type=int, default=1)
    args = ap.parse_args()
    import torchvision, transformers
    torch.set_num_threads(args.threads)
    models = {}
    for dtype in ("float32", "bfloat16"):
        models[dtype], processor = evaluate.load(args.folder, dtype)
    state = list(models["float32"].parameters())
    about = {"checkpoint": {"shape": "shapes", "seed": 1, "stored_as": "bf16", "parameters": sum(p.numel() for p in state),
                            "tensors": len(state)},
             "weights_sha256": hashlib.sha256((args.folder / "model.safetensors").read_bytes()).hexdigest(),
             "video_edge": processor.video_processor.size["longest_edge"],
             "versions": {"transformers": transformers.__version__, "torch": torch.__version__,
                          "torchvision": torchvision.__version__, "attn": "sdpa", "threads": args.threads}}
    cases = args.out / "golden" / "shapes"
    cases.mkdir(parents=True, exist_ok=True)
    (args.out / "shapes").mkdir(exist_ok=True)
    for name, case in CASES.items():
        run_case(models, processor, name, case, about, cases)
    run_held_out(models["float32"], processor, about, args.out / "shapes" / "held_out.json")


if __name__ == "__main__":
    main()
