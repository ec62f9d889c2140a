#!/usr/bin/env python3
"""Answers of very different lengths, as make_requests.py makes them.

  make_long_requests.py OUT.json

The model that models/shapes has ends its answers after 2 to 22 tokens, whatever it is asked. This one has the same sizes
and files with random weights (../random/make_random.py, `random_seed` in the file), and ends only where it must: after 8
to 96 tokens. What it says means nothing.

Needs Python 3.11 and what models/shapes/train/requirements.txt names.
"""
import argparse, pathlib, sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "random"))

import torch
import transformers

from make_random import ROOT, build
from make_requests import CLIP2, CLIP8, LANDSCAPE, NTSC, PORTRAIT, SMALL, answer, case, message, prepare, user, write

SEED = 5
VIDEO_EDGE = 64
CASES = [
    case("text_96", user("Tell me a story about 3 cats in 2024."), max_tokens=96),
    case("image_8", user(LANDSCAPE, "Can you describe this image?"), max_tokens=8),
    case("video_64", user(CLIP8, "What happens?"), max_tokens=64),
    case("text_8", user("Who are you?"), max_tokens=8),
    case("two_images_96", user(PORTRAIT, SMALL, "Which differs?"), split=False, max_tokens=96, repetition_penalty=1.2),
    case("conversation_32", message("system", "Be brief."), user("What happens?"), message("assistant", "A red circle."),
         user("And then?"), max_tokens=32, repetition_penalty=1.1),
    case("video_12", user(CLIP2, "Describe this video in detail"), max_tokens=12),
    case("image_split_80", user(LANDSCAPE, "Describe this image."), longest_edge=128, split=True, max_tokens=80),
    case("text_96_penalty", user("Say every colour."), max_tokens=96, repetition_penalty=1.3),
    case("text_1", user("Is the scene empty?"), max_tokens=1),
    case("video_96", user(NTSC, "When does it end?"), max_tokens=96, repetition_penalty=1.1),
    case("image_40", user(SMALL, "What is written there?"), split=False, max_tokens=40),
]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out", type=pathlib.Path)
    args = ap.parse_args()
    torch.set_num_threads(1)
    folder = ROOT / "models" / "shapes"
    model, processor = build(folder, SEED), transformers.AutoProcessor.from_pretrained(folder)
    done = []
    for it in CASES:
        result, margin = answer(model, processor, prepare(processor, VIDEO_EDGE, it), it)
        done.append(it | result)
        print(f"{it['name']}: {result['n_tokens']} tokens, {len(result['ids'])} new, {len(set(result['ids']))} different, "
              f"margin {margin:.4f}, {result['text'][:60]!r}", flush=True)
    write(args.out, {"random_seed": SEED}, done)


if __name__ == "__main__":
    main()
