#!/usr/bin/env python3
"""What the reference implementation makes of random weights in the sizes of SmolVLM2-256M, for the tests of other
implementations.

  make_random.py            writes golden/random-256M beside this file

The weights are not stored. They come from a formula (`numbers`) that gives the same bits in every language, from the
name and the shape of a tensor and a seed: `random_seed` in a case. ckpt/random-256M has the other files of the
checkpoint; its tokenizer is that of models/shapes, whose tokens are the first of the 49,280 that the sizes have.

A case is run alone, float32, SDPA, one thread of the CPU. Its JSON has conversations and media as those of
models/shapes/train/golden.py, and `longest_edge` where it is not the checkpoint's. Its tensors are those of the large
sets there: every so many-th row and column of what is per tile, the last position of what is per token (of three of the
text model's layers). `logits_last` is stored for one case only, because it is large.

Needs Python 3.11, what models/shapes/train/requirements.txt names, and 4 GB of memory.
"""
import json, pathlib, sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(HERE.parent / "requests"), str(ROOT / "models" / "shapes" / "train")]

import numpy as np
import torch
import torchvision
import transformers
from safetensors.torch import save_file

from golden import capture, sha256
from make_requests import LANDSCAPE, PORTRAIT, case, message, prepare, user

SHAPE, SEED = "random-256M", 3
STEPS = 6
VIDEO_EDGE = 512  # of no case
TEXT_LAYERS = (0, 14, 29)
CASES = [
    case("text", user("Tell me a story about 3 cats in 2024.")),
    case("system_conversation", message("system", "You are a camera.\n"), user("What happens?"),
         message("assistant", "A red circle moves up."), user("Is anything moving? Answer yes or no.")),
    # Two tiles, and one of the whole.
    case("image_split", user(LANDSCAPE, "Can you describe this image?"), longest_edge=1024, split=True),
    case("two_images", user("The first one: ", LANDSCAPE, " and the second one: ", PORTRAIT, "What happens?"),
         split=False),
]

GAMMA = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1


def mix(z):
    """SplitMix64's output for a state: of a whole number, or of an array of uint64."""
    whole = isinstance(z, int)
    fit, number = (lambda x: x & MASK, int) if whole else (lambda x: x, np.uint64)
    z = fit(z + number(GAMMA))
    z = fit((z ^ (z >> number(30))) * number(0xBF58476D1CE4E5B9))
    z = fit((z ^ (z >> number(27))) * number(0x94D049BB133111EB))
    return z ^ (z >> number(31))


def numbers(name, shape, seed):
    """The float32 numbers of a tensor: uniform around 0 (weights of norms: around 1) with variance 1 / inputs.

    state  = seed; for each byte of the name: state = mix(state ^ byte)
    u(i)   = (mix(state + GAMMA * i) >> 40) / 2^23 - 1
    x(i)   = centre + sqrt(3 / max(inputs, 4)) * u(i), where inputs is the product of all dimensions but the first
    """
    state = seed
    for byte in name.encode():
        state = mix(state ^ byte)
    spread = np.sqrt(np.float32(3) / np.float32(max(int(np.prod(shape[1:])), 4)))
    centre = np.float32("norm" in name and name.endswith("weight"))
    i = np.arange(np.prod(shape), dtype=np.uint64)
    u = (mix(np.uint64(state) + np.uint64(GAMMA) * i) >> np.uint64(40)).astype(np.float32)
    u = u / np.float32(1 << 23) - np.float32(1)
    return torch.from_numpy((centre + spread * u).reshape(shape))


def build(folder, seed):
    """The reference's model of the sizes in `folder`, with the formula's weights."""
    model = transformers.AutoModelForImageTextToText.from_config(
        transformers.AutoConfig.from_pretrained(folder), dtype=torch.float32, attn_implementation="sdpa")
    for name, parameter in model.named_parameters():
        parameter.data = numbers(name, tuple(parameter.shape), seed)
    model.generation_config = transformers.GenerationConfig.from_pretrained(folder)
    return model.eval()


@torch.no_grad()
def greedy(model, inputs):
    """Tokens, and the lead of each over the next most likely one."""
    out = model.generate(**inputs, do_sample=False, max_new_tokens=STEPS, output_logits=True, return_dict_in_generate=True)
    top = torch.stack(out.logits, 1).topk(2, dim=-1).values
    return out.sequences[:, inputs["input_ids"].shape[1]:], top[..., 0] - top[..., 1]


def run(model, processor, case, about, out):
    inputs = prepare(processor, None, case)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    content = [c for m in case["messages"] for c in m["content"]]
    placeholder = lambda c: c if c["type"] == "text" else {"type": c["type"]}
    messages = [m | {"content": [placeholder(c) for c in m["content"]]} for m in case["messages"]]
    info = {"messages": [messages], "media": [c | {"kind": c["type"]} for c in content if c["type"] != "text"],
            "splitting": case["options"].get("split"), "longest_edge": case["options"].get("longest_edge"),
            "prompt_text": [processor.tokenizer.decode(ids[0])], "n_tokens": [ids.shape[1]],
            "n_image_tokens": [int((ids == processor.image_token_id).sum())]}
    tensors = {"input_ids": ids, "attention_mask": mask}
    if "pixel_values" in inputs:
        u8 = (inputs["pixel_values"][0] * 127.5 + 127.5).round().to(torch.uint8)
        info["pixel_u8_sha256"] = [[sha256(tile.numpy()) for tile in u8]]
        tensors["pixel_u8"] = u8[:, :, ::31, ::31]
    seen = capture(model, inputs)
    for key in ("vision_embeddings", "vision_out"):
        if key in seen:
            tensors[key + "_slice"] = seen[key][:, ::93, ::16]
    if "connector_out" in seen:
        tensors["connector_out_slice"] = seen["connector_out"][:, ::7, :]
    for key in [*(f"text_layer{i}" for i in TEXT_LAYERS), "text_norm"]:
        tensors[key + "_last"] = seen[key][:, -1]
    if case is CASES[0]:
        tensors["logits_last"] = seen["logits_last"]
    tokens, margin = greedy(model, inputs)
    tensors |= {"greedy_ids": tokens, "greedy_margin": margin}
    info |= {"greedy_ids": tokens.tolist(), "greedy_min_margin": round(float(margin.min()), 5)} | about
    save_file({k: v.contiguous() for k, v in tensors.items()}, out / f"{case['name']}.safetensors")
    (out / f"{case['name']}.json").write_text(json.dumps(info, indent=1, ensure_ascii=False) + "\n")
    print(f"{case['name']}: {info['n_tokens']} tokens, {info['n_image_tokens']} of images, {info['greedy_ids']}, "
          f"margins {[round(x, 4) for x in margin[0].tolist()]}", flush=True)


def main():
    torch.set_num_threads(1)
    folder, out = HERE / "ckpt" / SHAPE, HERE / "golden" / SHAPE
    out.mkdir(parents=True, exist_ok=True)
    model, processor = build(folder, SEED), transformers.AutoProcessor.from_pretrained(folder)
    parameters = sum(p.numel() for p in model.parameters())
    about = {"checkpoint": {"shape": SHAPE, "random_seed": SEED, "parameters": parameters}, "video_edge": VIDEO_EDGE,
             "versions": {m.__name__: m.__version__ for m in (transformers, torch, torchvision)}}
    for it in CASES:
        run(model, processor, it, about, out)


if __name__ == "__main__":
    main()
