#!/usr/bin/env python3
"""Train the shapes model on the CPU, starting from earlier weights.

  train.py --out DIR

One training row is one clip with several questions. The questions share the video prefix: they sit one after the
other in the sequence, but each sees only the prefix and itself and counts positions from the prefix's end, so that
every question is trained exactly as if it were alone. Row layout, with segment numbers:

  <|im_start|>User: You are ... video.\\n\\nFrame from 00:00:<fake><global><image>*4<fake>...   0
  \\n\\nQUESTION<end_of_utterance>\\nAssistant: ANSWER<end_of_utterance>                         1, 2, ...

The loss is on the answers. Two linear probes, thrown away afterwards, can be added. Early on they are needed: without
them colours are learned quickly, shapes slowly, and motion hardly at all. Once the model knows motion, as the weights
that this starts from do, they can stay off (weight 0, the default):
  - sight: the mean of a frame's image tokens must say what is where. The mean, because attention reads all image
    tokens with one matrix; a probe that reads each of them with its own weights is satisfied by positions that the
    text model cannot read.
  - motion: halfway up the text model, the token that closes a frame must know where things are, were one frame before
    and were at first. Asking only for the differences leaves the model on a plateau.

What is saved is a running average of the weights. Every --every steps it is judged on held-out combinations drawn by
the camera; that only watches the training, the clips of evaluate.py are other ones.
"""
import argparse, copy, json, math, multiprocessing, os, pathlib, shutil, time

# Waiting threads must sleep, not spin: on a shared machine spinning makes every step several times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import numpy as np
import torch
import torch.nn.functional as F

import shapes

HERE = pathlib.Path(__file__).resolve().parent
FILES = ["config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json",
         "tokenizer.json", "tokenizer_config.json", "chat_template.json"]
FRAMES = list(range(2, 13))  # frames per clip, and how often each number is trained
FRAME_SHARE = [0.05, 0.08, 0.14, 0.13, 0.16, 0.11, 0.16, 0.05, 0.05, 0.03, 0.04]
QUESTIONS = 3  # yes/no questions per clip, besides the description
CHOICES = 2  # questions with given answers per clip


# ----------------------------------------------------------------------------- rows

class Rows:
    """Turns clips and questions into token rows. Text between special tokens is tokenized piece by piece."""

    def __init__(self, folder):
        from tokenizers import Tokenizer
        self.tok, self.cache = Tokenizer.from_file(str(folder / "tokenizer.json")), {}
        seats = json.loads((folder / "processor_config.json").read_text())["image_seq_len"]
        token = self.tok.token_to_id
        self.bos, self.eou, self.pad, self.image = map(
            token, ("<|im_start|>", "<end_of_utterance>", "<|im_end|>", "<image>"))
        fake = token("<fake_token_around_image>")
        self.shared = self.text(" moves") + self.text(" to")  # words that begin more than one motion
        self.frame = [fake, token("<global-img>")] + [self.image] * seats + [fake]

    def text(self, s):
        if s not in self.cache:
            self.cache[s] = self.tok.encode(s, add_special_tokens=False).ids
        return self.cache[s]

    def row(self, clip, qa):
        """ids, positions, segments, labels (the answer tokens where the token before them stands, else -100), and
        tokens that are left out of the choice there (else -1, see answer_loss). The first answer must be the description."""
        ids = [self.bos]
        for i, t in enumerate(clip.times):
            ids += self.text(("User: " + shapes.intro(clip) if i == 0 else "") + f"\nFrame from {shapes.stamp(t)}:")
            ids += self.frame
        n = len(ids)
        pos, seg, labels, spared = list(range(n)), [0] * n, [-100] * n, [-1] * n
        for k, (question, answer) in enumerate(qa, 1):
            head = self.text("\n\n" + question) + [self.eou] + self.text("\nAssistant:")
            tail = self.text(" " + answer) + [self.eou]
            ids += head + tail
            pos += range(n, n + len(head + tail))
            seg += [k] * len(head + tail)
            labels += [-100] * (len(head) - 1) + tail + [-100]
            other = [-1] * len(tail)
            for o in range(len(clip.objects) if k == 1 else 0):
                wrong = self.text(" " + shapes.describe(clip, hidden=o))
                parting = next((i for i, (a, b) in enumerate(zip(tail, wrong)) if a != b), None)
                # Nothing parts them where a clip shows the hidden motion itself, which is never in training.
                if parting is not None and wrong[parting] not in self.shared:
                    other[parting] = wrong[parting]
            spared += [-1] * (len(head) - 1) + other + [-1]
        return ids, pos, seg, labels, spared

    def batch(self, pixels, clips, qas):
        rows = [self.row(c, qa) for c, qa in zip(clips, qas)]
        length = max(len(r[0]) for r in rows)
        fill = lambda i, v: np.array([r[i] + [v] * (length - len(r[0])) for r in rows], np.int64)
        return dict(pixels=np.stack(pixels), ids=fill(0, self.pad), pos=fill(1, 0), seg=fill(2, 99),
                    labels=fill(3, -100), spared=fill(4, -1), sight=sight_targets(clips), motion=motion_targets(clips))


def positions(clip, o):
    """Centres in -1..1 of the square picture, and whether the object is there, per frame."""
    return 2 * o.path(clip.moments()) / np.array(shapes.small_size(clip.size)) - 1, o.shown(clip.moments())


def sight_targets(clips):
    """Per frame and colour: there or not, which shape, x and y."""
    out = np.zeros((len(clips), len(clips[0].times), len(shapes.COLOURS), 4), np.float32)
    for i, c in enumerate(clips):
        for o in c.objects:
            k = shapes.COLOURS.index(o.colour)
            out[i, :, k, 2:], out[i, :, k, 0] = positions(c, o)
            out[i, :, k, 1] = shapes.SHAPES.index(o.shape)
    return out


def motion_targets(clips):
    """Per frame and colour five times (x, y, known or not): where it is, where it was one frame before, where it was
    first, and the two differences."""
    out = np.zeros((len(clips), len(clips[0].times), len(shapes.COLOURS), 5, 3), np.float32)
    for i, c in enumerate(clips):
        for o in c.objects:
            k, (p, now) = shapes.COLOURS.index(o.colour), positions(c, o)
            before, was = np.roll(p, 1, 0), np.roll(now, 1)
            was[0] = False
            first, at_first = np.broadcast_to(p[:1], p.shape), np.broadcast_to(now[:1], now.shape)
            values = [p, before, first, 3 * (p - before), p - first]
            for m, (v, known) in enumerate(zip(values, [now, was, at_first, now & was, now & at_first])):
                out[i, :, k, m, :2], out[i, :, k, m, 2] = v, known
    return out


def training_batch(rng, rows, size, camera_share):
    frames = shapes.pick(rng, FRAMES, FRAME_SHARE)
    clips = [shapes.make_clip(rng, frames, rng.choice(3, p=(0.04, 0.36, 0.60)), shapes.TRAINED) for _ in range(size)]
    pixels = [shapes.shrink(shapes.camera(c)) if rng.random() < camera_share else shapes.sketch(rng, c) for c in clips]
    qas = [[(shapes.pick(rng, shapes.DESCRIBE), shapes.describe(c))] + [shapes.yes_no(rng, c, hide=True) for _ in range(QUESTIONS)]
           + [shapes.choice(rng, c, hide=True) for _ in range(CHOICES)] for c in clips]
    return rows.batch(pixels, clips, qas)


def worker(queue, folder, seed, size, camera_share):
    torch.set_num_threads(1)
    rows, rng = Rows(folder), np.random.default_rng(seed)
    while True:
        queue.put(training_batch(rng, rows, size, camera_share))


def watching_batches(seed, rows, count, size=16):
    """Clips with a held-out object each, drawn by the camera, for watching the training."""
    rng, out = np.random.default_rng(seed), []
    for b in range(count // size):
        clips = [shapes.make_clip(rng, 2 + b % 11, 1 + i % 2, first=shapes.UNSEEN, clock="camera") for i in range(size)]
        qas = [[(shapes.pick(rng, shapes.DESCRIBE), shapes.describe(c)), shapes.yes_no(rng, c, True),
                shapes.yes_no(rng, c, False), shapes.choice(rng, c)] for c in clips]
        out.append((rows.batch([shapes.shrink(shapes.camera(c)) for c in clips], clips, qas), clips))
    return out


# ----------------------------------------------------------------------------- model

def build(folder, weights):
    from safetensors.torch import load_file
    from transformers import AutoConfig, SmolVLMForConditionalGeneration
    config = AutoConfig.from_pretrained(folder)
    config.dtype = torch.float32
    model = SmolVLMForConditionalGeneration(config).float()
    model.load_state_dict({k: v.float() for k, v in load_file(weights).items()})
    return model


def features(model, pixels):
    """Image tokens of (n, 3, side, side) floats; what get_image_features does for full frames, without its masks."""
    vision = model.model.vision_model
    x = vision.embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
    x = x + vision.embeddings.position_embedding.weight
    for layer in vision.encoder.layers:
        x = layer(x, None)
        x = x[0] if isinstance(x, tuple) else x
    return model.model.connector(vision.post_layernorm(x))


def forward(model, batch, image):
    """Logits at the labelled places, their labels, rows and segments, and the mean image token of every frame."""
    pixels = torch.from_numpy(batch["pixels"]).float() / 127.5 - 1
    b, t = pixels.shape[:2]
    tokens = features(model, pixels.flatten(0, 1))
    ids, seg, labels = (torch.from_numpy(batch[k]) for k in ("ids", "seg", "labels"))
    x = model.model.text_model.embed_tokens(ids)
    x = x.masked_scatter((ids == image)[..., None], tokens)
    length = ids.shape[1]
    mask = torch.ones(length, length, dtype=torch.bool).tril() & ((seg[:, None] == 0) | (seg[:, :, None] == seg[:, None]))
    h = model.model.text_model(inputs_embeds=x, attention_mask=mask[:, None], use_cache=False,
                               position_ids=torch.from_numpy(batch["pos"])).last_hidden_state
    where = labels != -100
    return model.lm_head(h[where]), labels[where], where.nonzero()[:, 0], seg[where], tokens.mean(1).view(b, t, -1)


def answer_loss(logits, labels, spared):
    """Cross-entropy in which a word that means an object's hidden motion is never called wrong: it is left out of the
    choice. Otherwise the model learns by heart what an object never does, and says so of held-out clips. Words that
    begin other motions too ("moves") stay: without them the model cannot tell rest from movement."""
    rows = (spared >= 0).nonzero()[:, 0]
    return F.cross_entropy(logits.index_put((rows, spared[rows]), torch.tensor(-1e4)), labels)


def sight_loss(probe, tokens, target):
    target = torch.from_numpy(target)
    kinds = len(shapes.SHAPES)
    out = probe(tokens).view(*target.shape[:3], 3 + kinds)
    there = target[..., 0]
    loss = 3 * F.binary_cross_entropy_with_logits(out[..., 0], there)
    on = there > 0
    if on.any():
        loss = loss + F.cross_entropy(out[..., 1:1 + kinds][on], target[..., 1][on].long())
        loss = loss + 4 * F.mse_loss(out[..., 1 + kinds:][on], target[..., 2:][on])
    return loss


def motion_loss(probe, hidden, batch, image):
    ids, target = torch.from_numpy(batch["ids"]), torch.from_numpy(batch["motion"])
    close = torch.zeros_like(ids, dtype=torch.bool)  # the token that closes a frame
    close[:, 1:] = (ids[:, :-1] == image) & (ids[:, 1:] != image)
    out = probe(hidden[close]).view(*target.shape[:4], 2)
    on = target[..., 2] > 0
    return F.mse_loss(out[on], target[..., :2][on]) if on.any() else out.sum() * 0


@torch.no_grad()
def watch(model, batches, image):
    """Share of exactly right answers. Every argmax right with the right answer before it means that greedy decoding
    is right."""
    hits = {"describe1": [], "describe2": [], "yes_no": [], "choice": []}
    for batch, clips in batches:
        logits, labels, row, seg, _ = forward(model, batch, image)
        right = logits.argmax(-1) == labels
        for i, clip in enumerate(clips):
            for k, kind in enumerate([f"describe{len(clip.objects)}", "yes_no", "yes_no", "choice"], 1):
                hits[kind].append(bool(right[(row == i) & (seg == k)].all()))
    return {k: round(float(np.mean(v)), 4) for k, v in hits.items()}


def save(model, out, log):
    from safetensors.torch import save_file
    save_file({n: p.detach().to(torch.bfloat16).contiguous() for n, p in model.named_parameters()},
              out / "model.safetensors.tmp", metadata={"format": "pt"})
    os.replace(out / "model.safetensors.tmp", out / "model.safetensors")
    (out / "training_log.json").write_text(json.dumps(log, indent=1) + "\n")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", required=True, help="folder for the finished model")
    ap.add_argument("--files", type=pathlib.Path, default=HERE.parent, help="folder with config and tokenizer")
    ap.add_argument("--init", type=pathlib.Path, default=HERE / "initial.safetensors", help="weights to start from")
    ap.add_argument("--minutes", type=float, default=40, help="the learning rate follows the clock and ends at this time")
    ap.add_argument("--seed", type=int, default=5)
    ap.add_argument("--batch", type=int, default=16)
    ap.add_argument("--lr", type=float, default=6e-4)
    ap.add_argument("--warmup", type=int, default=50)
    ap.add_argument("--average", type=float, default=0.995, help="how much of the average of the weights stays per step")
    ap.add_argument("--sight", type=float, default=0, help="weight of the sight probe")
    ap.add_argument("--motion", type=float, default=0, help="weight of the motion probe")
    ap.add_argument("--camera", type=float, default=0.3, help="share of the clips that are drawn by the camera")
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--every", type=int, default=400)
    args = ap.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if args.files.resolve() != out.resolve():
            shutil.copyfile(args.files / name, out / name)
    rows = Rows(out)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue(6)
    process = context.Process(target=worker, args=(queue, out, args.seed, args.batch, args.camera), daemon=True)
    process.start()

    model = build(out, args.init)
    average = copy.deepcopy(model)
    width, layers = model.config.text_config.hidden_size, model.model.text_model.layers
    sight = torch.nn.Linear(width, (3 + len(shapes.SHAPES)) * len(shapes.COLOURS))
    motion = torch.nn.Linear(width, 10 * len(shapes.COLOURS))
    middle = {}
    layers[len(layers) // 2 - 1].register_forward_hook(
        lambda _m, _a, o: middle.update(h=o[0] if isinstance(o, tuple) else o))
    matrices = [p for n, p in model.named_parameters() if p.ndim >= 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim < 2 or "embed" in n]
    probes = [*sight.parameters(), *motion.parameters()]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0},
                                   {"params": probes, "weight_decay": 0.0}], betas=(0.9, 0.98), eps=1e-8)

    watched = watching_batches(999, rows, 352)
    log = {"args": {k: v for k, v in vars(args).items() if isinstance(v, (int, float))},
           "parameters": sum(p.numel() for p in model.parameters()), "log": []}
    start, step, losses, finished = time.time(), 0, [], False
    while not finished:
        done = min((time.time() - start) / 60 / args.minutes, 1)
        lr = args.lr * min(1, (step + 1) / args.warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        for group, rate in zip(optimizer.param_groups, (lr, lr, 3 * args.lr)):
            group["lr"] = rate
        batch = queue.get()
        logits, labels, _, _, tokens = forward(model, batch, rows.image)
        answers = answer_loss(logits, labels, torch.from_numpy(batch["spared"][batch["labels"] != -100]))
        seen = sight_loss(sight, tokens, batch["sight"])
        moved = motion_loss(motion, middle["h"], batch, rows.image)
        optimizer.zero_grad(set_to_none=True)
        (answers + max(0, 1 - 1.2 * done) * (args.sight * seen + args.motion * moved)).backward()
        torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 1.0)
        optimizer.step()
        step += 1
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()),
                                 1 - min(args.average, (step + 1) / (step + 10)))
        losses.append((answers.item(), seen.item(), moved.item()))
        finished = done >= 1
        if step % 50 == 0:
            print(f"step {step} {time.time() - start:.0f}s lr {lr:.2e} answers, sight, motion "
                  f"{np.mean(losses[-50:], 0).round(4).tolist()}", flush=True)
        if step % args.every == 0 or finished:
            log["log"].append({"step": step, "seconds": round(time.time() - start),
                               "loss": round(float(np.mean([x[0] for x in losses[-100:]])), 4),
                               **watch(average, watched, rows.image)})
            print(json.dumps(log["log"][-1]), flush=True)
            save(average, out, log)
    process.terminate()
    process.join()


if __name__ == "__main__":
    main()
