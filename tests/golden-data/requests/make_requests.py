#!/usr/bin/env python3
"""What the reference implementation answers to whole requests, for the tests of other implementations.

  make_requests.py CHECKPOINT OUT.json

Every case is run alone: greedy search, float32, SDPA, one thread of the CPU. `ids` are the generated tokens without the
stop token, `stopped` says whether there was one, `text` is decoded without special tokens and not trimmed.

Pictures come from an integer formula (`frame`): an image is frame(first, h, w), and frame i of a video is
frame(first + i, h, w) at the time frames_indices[i] / fps.

Options that a case leaves out are as the checkpoint says. For `video_edge` that is video_sampling.video_size in
preprocessor_config.json: the size that SmolVLM2 is trained with. Transformers overwrites it with the size of images.

Not here, because transformers itself cannot do it: images and videos in one conversation (both become `pixel_values`,
and the videos' replace the images'). Nor are videos of different lengths in one conversation: it words the number of
frames of each after the longest one.

Needs Python 3.11 and what models/shapes/train/requirements.txt names.
"""
import argparse, hashlib, json, os, pathlib

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
import torchvision
import transformers
from PIL import Image
from transformers.video_utils import VideoMetadata

MAX_TOKENS = 24


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


# ----------------------------------------------------------------------------- cases

def message(role, *content):
    return {"role": role, "content": [{"type": "text", "text": c} if isinstance(c, str) else c for c in content]}


def user(*content):
    return message("user", *content)


def image(w, h, first):
    return {"type": "image", "w": w, "h": h, "first": first}


def video(n, w, h, first, fps, step, duration):
    """`n` frames, one every `step` seconds."""
    return {"type": "video", "w": w, "h": h, "n": n, "first": first, "fps": fps,
            "frames_indices": [round(i * step * fps) for i in range(n)], "duration": duration}


def case(name, *messages, repetition_penalty=None, max_tokens=MAX_TOKENS, **options):
    made = {"name": name, "messages": list(messages), "options": options}
    if repetition_penalty is not None:
        made["repetition_penalty"] = repetition_penalty
    return made | {"max_tokens": max_tokens}


# Pictures and questions were chosen so that most options, if ignored, give another answer, and so that no greedy choice
# is a close one: the best score leads by 0.02 or more.
LANDSCAPE, PORTRAIT, WIDE, SMALL = image(500, 200, 0), image(150, 400, 7), image(900, 60, 11), image(23, 17, 5)
CLIP2, CLIP8 = video(2, 300, 200, 12, 25.0, 1.2, 2.4), video(8, 160, 200, 28, 25.0, 1.2, 9.6)
CLIP12, MINUTE = video(12, 160, 200, 0, 25.0, 1.2, 14.4), video(2, 90, 160, 60, 12.5, 62.0, 125.5)
NTSC = video(8, 120, 200, 20, 29.97, 1.0, 8.008)
DESCRIBE, HAPPENS = "Can you describe this image?", "What happens?"
STILL = message("assistant", "A red triangle stays still while a blue triangle stays still.")

CASES = [
    # One image.
    case("image", user(LANDSCAPE, DESCRIBE)),
    case("image_whole", user(LANDSCAPE, DESCRIBE), split=False),
    case("image_split", user(LANDSCAPE, DESCRIBE), split=True),
    case("image_edge_64", user(LANDSCAPE, DESCRIBE), longest_edge=64, split=True),  # one tile: not cut
    case("image_edge_128", user(LANDSCAPE, DESCRIBE), longest_edge=128, split=True),
    case("image_edge_256", user(LANDSCAPE, DESCRIBE), longest_edge=256, split=True),
    case("image_edge_between_tiles", user(PORTRAIT, DESCRIBE), longest_edge=150, split=True),
    case("image_edge_whole", user(LANDSCAPE, DESCRIBE), longest_edge=100, split=False),
    case("image_portrait", user(PORTRAIT, "What is happening?")),
    case("image_very_wide", user(WIDE, "Describe this video.")),
    case("image_smaller_than_a_tile", user(SMALL, HAPPENS)),
    case("image_empty_question", user(LANDSCAPE, "")),
    # Several images.
    case("two_images", user("The first one: ", LANDSCAPE, " and the second one: ", PORTRAIT, HAPPENS)),
    case("three_images", user(PORTRAIT, WIDE, LANDSCAPE, "Describe the video."), longest_edge=128),
    # Text.
    case("text", user("Describe this video in detail.")),
    case("text_empty", user("")),
    case("text_unicode", user("Café naïve — “quotes”\n\n日本語 🙂👍🏽\n\tWhat happens?\n")),
    # Conversations.
    case("system", message("system", "Be brief."), user("What happens in this video?")),
    case("system_image", message("system", "You are a camera.\n"), user(LANDSCAPE, DESCRIBE), split=False),
    case("image_then_text", user(LANDSCAPE, HAPPENS), message("assistant", "A red circle moves up."),
         user("Is anything moving? Answer yes or no.")),
    case("image_then_image", user(LANDSCAPE, HAPPENS), message("assistant", "Nothing is there."),
         user("And here? ", PORTRAIT), longest_edge=64),
    case("text_then_video", user("Is the scene empty?"), message("assistant", "No."),
         user(NTSC, "Describe this video.")),
    case("video_then_video", user(CLIP2, HAPPENS), message("assistant", "A blue square appears."),
         user(MINUTE, "Describe what happens in this video.")),
    # Videos.
    case("video_2", user(CLIP2, HAPPENS)),
    case("video_8", user(CLIP8, HAPPENS)),
    case("video_12", user(CLIP12, HAPPENS)),
    case("video_2_edge_100", user(CLIP2, HAPPENS), video_edge=100),
    case("video_2_edge_256", user(CLIP2, HAPPENS), video_edge=256),
    case("video_8_edge_256", user(CLIP8, HAPPENS), video_edge=256),
    case("video_12_edge_256", user(CLIP12, HAPPENS), video_edge=256),
    case("video_after_text", user("Look at this:", CLIP2, HAPPENS)),
    # Generation.
    case("penalty_text", user("Once upon a time, a blue triangle"), STILL, user("Describe this video."),
         repetition_penalty=1.3),
    case("penalty_image", user(LANDSCAPE, DESCRIBE), repetition_penalty=1.3),
    case("penalty_image_conversation", user(PORTRAIT, "What is a red triangle?"), message("assistant", "Yes."),
         user("And then?"), repetition_penalty=1.3),
    case("penalty_video", user(NTSC, "What is a red triangle?"), STILL, user("And then?"), repetition_penalty=1.3),
    case("limit_3", user(LANDSCAPE, DESCRIBE), max_tokens=3),
    case("limit_at_stop", user("Is the scene empty?"), max_tokens=3),  # the stop token is the third
    case("limit_before_stop", user("Is the scene empty?"), max_tokens=2),
]


# ----------------------------------------------------------------------------- the reference

def prepare(processor, video_edge, case):
    """The model's inputs for one case, made by the processor."""
    content = [c for m in case["messages"] for c in m["content"]]
    images = [Image.fromarray(frame(c["first"], c["h"], c["w"])) for c in content if c["type"] == "image"]
    videos = [c for c in content if c["type"] == "video"]
    arguments, options = {}, case["options"]
    if images:
        arguments["images"] = [images]
        arguments["images_kwargs"] = {}
        if "split" in options:
            arguments["images_kwargs"]["do_image_splitting"] = options["split"]
        if "longest_edge" in options:
            arguments["images_kwargs"]["size"] = {"longest_edge": options["longest_edge"]}
    if videos:
        arguments["videos"] = [np.stack([frame(v["first"] + i, v["h"], v["w"]) for i in range(v["n"])]) for v in videos]
        arguments["video_metadata"] = [
            VideoMetadata(total_num_frames=v["frames_indices"][-1] + 1, fps=v["fps"], width=v["w"], height=v["h"],
                          duration=v["duration"], frames_indices=v["frames_indices"]) for v in videos]
        arguments["videos_kwargs"] = {"size": {"longest_edge": options.get("video_edge", video_edge)}}
    text = processor.apply_chat_template(case["messages"], add_generation_prompt=True, tokenize=False)
    return processor(text=[text], return_tensors="pt", **arguments)


@torch.no_grad()
def answer(model, processor, inputs, case):
    """The results of one case, and the smallest lead of a chosen token's score over the next one."""
    out = model.generate(**inputs, do_sample=False, max_new_tokens=case["max_tokens"], output_scores=True,
                         repetition_penalty=case.get("repetition_penalty"), return_dict_in_generate=True)
    prompt = inputs["input_ids"]
    ids = out.sequences[0, prompt.shape[1]:].tolist()
    stopped = ids[-1] == model.generation_config.eos_token_id
    ids = ids[:-1] if stopped else ids
    top = torch.cat(out.scores).topk(2).values
    return {"n_tokens": prompt.shape[1], "n_image_tokens": int((prompt == processor.image_token_id).sum()), "ids": ids,
            "stopped": stopped, "text": processor.tokenizer.decode(ids, skip_special_tokens=True)}, \
        float((top[:, 0] - top[:, 1]).min())


def load(checkpoint):
    """Model, processor, and the first resize of a video's frames that the checkpoint says."""
    torch.set_num_threads(1)
    model = transformers.AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32,
                                                                     attn_implementation="sdpa").eval()
    settings = json.loads((checkpoint / "preprocessor_config.json").read_text())
    processor = transformers.AutoProcessor.from_pretrained(checkpoint)
    return model, processor, settings["video_sampling"]["video_size"]["longest_edge"]


def sha256_of_weights(checkpoint):
    return {"weights_sha256": hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()}


def write(out, weights, cases):
    """The cases as JSON, with what made them. `weights` says which these are."""
    dump = lambda x: json.dumps(x, ensure_ascii=False)
    head = {"versions": {m.__name__: m.__version__ for m in (transformers, torch, torchvision)}, **weights}
    cases = ",\n".join("  {" + ",\n   ".join(f"{dump(k)}: {dump(v)}" for k, v in c.items()) + "}" for c in cases)
    out.write_text("{\n" + "".join(f" {dump(k)}: {dump(v)},\n" for k, v in head.items())
                   + f' "cases": [\n{cases}\n ]\n}}\n', encoding="utf-8")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("checkpoint", type=pathlib.Path)
    ap.add_argument("out", type=pathlib.Path)
    args = ap.parse_args()
    model, processor, video_edge = load(args.checkpoint)
    done = []
    for it in CASES:
        result, margin = answer(model, processor, prepare(processor, video_edge, it), it)
        done.append(it | result)
        print(f"{it['name']}: {result['n_tokens']} tokens, {result['n_image_tokens']} of images, "
              f"{len(result['ids'])} new, margin {margin:.4f}, {result['text']!r}", flush=True)
    write(args.out, sha256_of_weights(args.checkpoint), done)


if __name__ == "__main__":
    main()
