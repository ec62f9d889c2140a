#!/usr/bin/env python3
"""Judge a finished folder the way a user meets it: transformers' from_pretrained, processor and generate().

  evaluate.py MODEL_FOLDER --out evaluation.json           # frames as the camera draws them
  evaluate.py MODEL_FOLDER --out evaluation.json --h264    # the same clips through an H.264 encoder and back

Every clip that is not empty shows a combination of colour, shape and motion that was never trained. A clip is asked
for a description, one question whose answer is yes, one whose answer is no, and one with given answers; an answer counts
only if it is right to the letter. The last three are also asked as camscribe asks them, for the probabilities of the
possible answers: "AUROC" is of yes among yes and no, "calibration error" the expected one in ten bins, of yes, and of the
most likely of the given answers. --h264 needs ffmpeg with libx264.
"""
import argparse, json, os, pathlib, subprocess

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch

import shapes

FPS = 25


def load(folder, dtype="float32"):
    from transformers import AutoModelForImageTextToText, AutoProcessor
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    processor = AutoProcessor.from_pretrained(folder)
    processor.tokenizer.padding_side = "left"
    # Transformers takes the still images' size for the first resize; SmolVLM2 is trained with the size of one tile.
    processor.video_processor.size = {"longest_edge": shapes.SIDE}
    return model, processor


def prepare(processor, frames, times, duration, question):
    """The processor's output for frames (t, h, w, 3). With 1000 frames per second any time is a whole index."""
    from transformers.video_utils import VideoMetadata
    message = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]
    text = processor.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
    index = [round(1000 * float(t)) for t in times]
    meta = VideoMetadata(total_num_frames=index[-1] + 1, fps=1000.0, width=frames.shape[2], height=frames.shape[1],
                         duration=duration, frames_indices=index)
    return processor(text=[text], videos=[frames], video_metadata=[meta], return_tensors="pt")


@torch.no_grad()
def answer(model, processor, inputs):
    inputs = dict(inputs, pixel_values=inputs["pixel_values"].to(model.dtype))
    out = model.generate(**inputs, do_sample=False, max_new_tokens=48)
    return processor.tokenizer.decode(out[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True).strip()


@torch.no_grad()
def probabilities(model, processor, clip, frames, question, labels):
    """Of each label beside the others: a softmax over the logarithms of their probabilities after the question."""
    inputs = prepare(processor, frames, clip.times, clip.duration, question)
    inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    logs = []
    for label in labels:
        ids = processor.tokenizer(" " + label, add_special_tokens=False, return_tensors="pt").input_ids
        whole = dict(inputs, input_ids=torch.cat([inputs["input_ids"], ids], 1))
        whole["attention_mask"] = torch.ones_like(whole["input_ids"])
        at = model(**whole).logits[0, -ids.shape[1] - 1:-1].float().log_softmax(-1)
        logs.append(at.gather(1, ids[0][:, None]).sum())
    return torch.stack(logs).softmax(0).numpy()


def auroc(scores, truths):
    """How often a true case has the higher score than a false one; the same score counts half."""
    yes, no = (np.array([s for s, t in zip(scores, truths) if t == wanted]) for wanted in (True, False))
    return float(np.mean((yes[:, None] > no) + 0.5 * (yes[:, None] == no)))


def calibration_error(scores, hits):
    """The mean distance between probability and share of hits, over ten bins of equal width."""
    scores, hits = np.array(scores), np.array(hits, float)
    bins = np.minimum((scores * 10).astype(int), 9)
    return float(sum(abs((scores - hits)[bins == b].mean()) * (bins == b).mean() for b in set(bins.tolist())))


def chosen(model, processor, clip, frames, question):
    """The most likely of the answers that a question lists, and its probability: the mean of two orders."""
    text, listed = question.rsplit(": ", 1)
    labels = listed.rstrip(".").split(", ")
    forward = probabilities(model, processor, clip, frames, question, labels)
    backward = probabilities(model, processor, clip, frames, f"{text}: {', '.join(labels[::-1])}.", labels)
    mean = (forward + backward) / 2
    return labels[int(mean.argmax())], float(mean.max())


def test_clips(seed, count):
    """`count` clips with one object, `count` with two and a tenth of that with none, of 2 to 12 frames, with questions."""
    rng, choices = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    out = []
    for objects, number in ((1, count), (2, count), (0, count // 10)):
        for i in range(number):
            clip = shapes.make_clip(rng, 2 + i % 11, objects, first=shapes.UNSEEN, clock="camera")
            asked = [("describe", shapes.pick(rng, shapes.DESCRIBE), shapes.describe(clip)),
                     ("yes", *shapes.yes_no(rng, clip, True)), ("no", *shapes.yes_no(rng, clip, False)),
                     ("choice", *shapes.choice(choices, clip))]
            out.append((clip, asked))
    return out


def round_trip(clip):
    """The clip filmed at 25 frames a second, encoded, decoded, and its frames taken out again."""
    w, h = clip.size
    last = clip.times[-1]
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{w}x{h}", "-r", str(FPS)]
    quiet = ["ffmpeg", "-loglevel", "error", "-threads", "1"]
    coder = ["-c:v", "libx264", "-threads", "1", "-preset", "veryfast", "-crf", "26", "-pix_fmt", "yuv420p"]
    film = b"".join(shapes.draw(clip, min(i / FPS / last, 1)).tobytes() for i in range(round(last * FPS) + 1))
    coded = subprocess.run([*quiet, *raw, "-i", "-", *coder, "-f", "h264", "-"], input=film, check=True,
                           capture_output=True).stdout
    back = subprocess.run([*quiet, "-f", "h264", "-i", "-", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], input=coded,
                          check=True, capture_output=True).stdout
    frames = np.frombuffer(back, np.uint8).reshape(-1, h, w, 3)
    assert len(frames) == len(film) // (w * h * 3)
    return frames[[round(t * FPS) for t in clip.times]]


def judge(folder, count, seed, h264, dtype):
    model, processor = load(folder, dtype)
    table, wrong = {}, []
    yes, choices = [], []  # probability, and whether it is so
    clips = test_clips(seed, count)
    for clip, asked in clips:
        frames = round_trip(clip) if h264 else shapes.camera(clip)
        n = len(clip.times)
        for kind, question, right in asked:
            got = answer(model, processor, prepare(processor, frames, clip.times, clip.duration, question))
            name = {"describe": f"describe, objects: {len(clip.objects)}", "choice": "choice"}.get(kind, "yes or no")
            span = "2-3 frames" if n < 4 else "4-8 frames" if n < 9 else "9-12 frames"
            for key in (name, f"{name}, {span}"):
                cell = table.setdefault(key, [0, 0])
                cell[0] += got == right
                cell[1] += 1
            if kind in ("yes", "no"):
                asked_for = question.removesuffix(" Answer yes or no.") + " Answer yes or no."
                likely = probabilities(model, processor, clip, frames, asked_for, ["Yes", "No"])
                yes.append((float(likely[0]), kind == "yes"))
            elif kind == "choice":
                choice, likely = chosen(model, processor, clip, frames, question)
                choices.append((likely, choice == right))
            if got != right:
                wrong.append({"frames": n, "size": clip.size, "scene": shapes.describe(clip), "question": question,
                              "right": right, "got": got})
    probabilities_of = {
        "yes or no": {"AUROC": round(auroc(*zip(*yes)), 4), "calibration error": round(calibration_error(*zip(*yes)), 4)},
        "choice": {"right": round(float(np.mean([hit for _, hit in choices])), 4),
                   "calibration error": round(calibration_error(*zip(*choices)), 4)},
    }
    return {"clips": len(clips), "dtype": dtype, "seed": seed,
            "right": {k: f"{a}/{b} = {a / b:.4f}" for k, (a, b) in sorted(table.items())},
            "probabilities": probabilities_of, "wrong": wrong}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("folder")
    ap.add_argument("--out", type=pathlib.Path, default="evaluation.json", help="results are added to this file")
    ap.add_argument("--count", type=int, default=150, help="clips with one object, and as many with two")
    ap.add_argument("--seed", type=int, default=4242)
    ap.add_argument("--h264", action="store_true")
    ap.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    ap.add_argument("--threads", type=int, default=1)
    args = ap.parse_args()
    torch.set_num_threads(args.threads)
    result = judge(args.folder, args.count, args.seed, args.h264, args.dtype)
    whole = json.loads(args.out.read_text()) if args.out.exists() else {}
    whole[("H.264" if args.h264 else "camera") + ("" if args.dtype == "float32" else ", " + args.dtype)] = result
    args.out.write_text(json.dumps(whole, indent=1) + "\n")
    print(json.dumps({"right": result["right"], "probabilities": result["probabilities"]}, indent=1))


if __name__ == "__main__":
    main()
