"""The small world the model knows: one or two coloured shapes in front of a plain background.

`make_clip` invents a clip (what is there, how it moves, when the frames were taken), `describe` and `yes_no` word it,
and two artists can draw it:

  * `sketch` draws straight at the model's 64 x 64 pixels, with all kinds of small disturbances; fast, for training;
  * `camera` draws full-size frames (640 x 360 and the like) with Pillow, which `shrink` then scales down in the two
    steps of SmolVLM2's processor. This is how clips reach the model in camscribe.

Everything follows from the random generator that is passed in.
"""
import dataclasses
import functools

import numpy as np
from PIL import Image, ImageDraw

SIDE = 64  # the model's picture is SIDE x SIDE
COLOURS = ["red", "green", "blue", "yellow"]  # also the order in which objects are named
SHAPES = ["circle", "square", "triangle"]
MOTIONS = ["right", "left", "up", "down", "still", "appear", "disappear"]
BACKGROUNDS = ["black", "grey", "white"]
VERB = {"right": "moves to the right", "left": "moves to the left", "up": "moves up", "down": "moves down",
        "still": "stays still", "appear": "appears", "disappear": "disappears"}
ASK = {"right": "move to the right", "left": "move to the left", "up": "move up", "down": "move down",
       "still": "stay still", "appear": "appear", "disappear": "disappear"}
WAY = {"right": "right", "left": "left", "up": "up", "down": "down", "still": "nowhere"}
COUNT = ["none", "one", "two"]
DESCRIBE = ["Describe what happens in this video.", "Describe this video.", "Describe this video in detail.",
            "What happens in this video?", "What is happening in this video?", "What is happening?", "What happens?",
            "Describe the video."]
NUMBER = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]

# Lowest and highest value of each channel; and what the camera draws.
COLOUR_RANGE = {"red": ((170, 255), (0, 55), (0, 55)), "green": ((0, 60), (120, 255), (0, 85)),
                "blue": ((0, 60), (0, 90), (170, 255)), "yellow": ((220, 255), (195, 255), (0, 60))}
COLOUR_RGB = {"red": (255, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 255), "yellow": (255, 230, 0)}
GROUND_RANGE = {"black": (0, 55), "grey": (100, 150), "white": (205, 255)}
GROUND_RGB = {"black": (16, 16, 24), "grey": (128, 128, 128), "white": (240, 240, 236)}

SIZES = [(640, 360), (640, 480), (480, 480), (360, 640)]  # width, height
SIZE_SHARE = [0.6, 0.15, 0.15, 0.1]
RADIUS = (5.0, 9.0)  # of an object, where the picture's longer side is SIDE


def held_out(colour, shape, motion):
    """12 of the 84 combinations are never trained; every pair of two properties still is."""
    return (COLOURS.index(colour) + 2 * SHAPES.index(shape) + 3 * MOTIONS.index(motion)) % 7 == 0


def hidden_motion(colour, shape):
    """The one motion in which an object is never trained."""
    return next(m for m in MOTIONS if held_out(colour, shape, m))


COMBINATIONS = [(c, s, m) for c in COLOURS for s in SHAPES for m in MOTIONS]
SEEN = [t for t in COMBINATIONS if not held_out(*t)]
UNSEEN = [t for t in COMBINATIONS if held_out(*t)]
TRAINED = SEEN + [t for t in SEEN if t[2] == "still"]  # rest is the hardest to tell and shown twice as often


@dataclasses.dataclass
class Object:
    """Lengths are in pixels of the picture whose longer side is SIDE; moments run from 0 (first frame) to 1 (last)."""
    colour: str
    shape: str
    motion: str
    radius: float = 0.0
    start: np.ndarray = None  # centre (x, y) at the first moment
    end: np.ndarray = None  # and at the last
    moving: tuple = (0.0, 1.0)  # moments between which it moves
    change: float = 0.0  # moment at which it appears or disappears

    def path(self, moments):
        a, b = self.moving
        return self.start + np.clip((moments - a) / (b - a), 0, 1)[:, None] * (self.end - self.start)

    def shown(self, moments):
        if self.motion in ("appear", "disappear"):
            return (moments >= self.change) == (self.motion == "appear")
        return moments >= 0


@dataclasses.dataclass
class Clip:
    objects: list  # in naming order
    background: str
    size: tuple  # the camera's width and height
    times: np.ndarray  # of the frames, in seconds
    duration: float

    def moments(self):
        return np.linspace(0, 1, len(self.times))


def pick(rng, items, p=None):
    return items[rng.choice(len(items), p=p)]


def small_size(size):
    """The picture after the processor's first resize: longest edge SIDE, the other one even."""
    w, h = size
    if w >= h:
        return SIDE, int(SIDE / (w / h)) + int(SIDE / (w / h)) % 2
    return int(SIDE * (w / h)) + int(SIDE * (w / h)) % 2, SIDE


# ----------------------------------------------------------------------------- inventing clips

def place(rng, o, count, size):
    """Choose where an object is and how far it goes: at least 0.4 of the way it could go."""
    o.radius = rng.uniform(RADIUS[0], RADIUS[1] - (count - 1))
    low = np.full(2, o.radius + 1)
    high = np.array(size) - low
    o.start = rng.uniform(low, high)
    o.end = o.start.copy()
    if o.motion in ("right", "left", "up", "down"):
        axis = 0 if o.motion in ("right", "left") else 1
        span = high[axis] - low[axis]
        length = rng.uniform(0.4, 1.0) * span
        near = rng.uniform(low[axis], high[axis] - length)
        ends = (near, near + length) if o.motion in ("right", "down") else (near + length, near)
        o.start[axis], o.end[axis] = ends


def apart(objects, moments):
    """Whether two objects never come closer than a pixel, counting their bounding squares."""
    a, b = objects
    gap = np.abs(a.path(moments) - b.path(moments)).max(1) - (a.radius + b.radius)
    return gap.min() > 1


def make_clip(rng, frames, count, combinations=SEEN, first=None, size=None, clock="any"):
    """A clip of `frames` frames with `count` objects from `combinations`, one of them from `first` if that is given.
    `clock` "camera" means: first frame at 0 s, then every half second, second or two seconds."""
    while True:
        objects = [Object(*pick(rng, first if first and k == 0 else combinations)) for k in range(count)]
        if len({o.colour for o in objects}) == count:
            break
    objects.sort(key=lambda o: COLOURS.index(o.colour))
    size = size or pick(rng, SIZES, SIZE_SHARE)
    moments = np.linspace(0, 1, frames)
    for o in objects:
        if o.motion in ("appear", "disappear"):
            o.change = (rng.integers(1, frames) - 0.5) / (frames - 1)
        elif frames > 3 and rng.random() < 0.4:
            o.moving = rng.uniform(0, 0.15), rng.uniform(0.85, 1)
    while True:
        for o in objects:
            place(rng, o, count, small_size(size))
        if count < 2 or apart(objects, np.linspace(0, 1, 25)) or (rng.random() < 0.1 and apart(objects, moments)):
            break
    if clock == "camera" or rng.random() < 0.6:
        step, begin = pick(rng, [0.5, 1, 1, 1, 2]), 0
    else:
        step, begin = rng.uniform(0.25, 3), rng.uniform(0, 600) if rng.random() < 0.5 else 0
    duration = begin + frames * step if clock == "camera" or rng.random() < 0.7 else \
        begin + (frames - 1) * step + rng.uniform(0, 10)
    return Clip(objects, pick(rng, BACKGROUNDS), size, begin + step * np.arange(frames), duration)


# ----------------------------------------------------------------------------- words

def stamp(seconds):
    return f"{int(seconds // 60):02d}:{int(seconds % 60):02d}"


def intro(clip):
    """What SmolVLM2's processor writes before the frames."""
    d = int(clip.duration)
    return (f"You are provided the following series of {NUMBER[len(clip.times)]} frames from a "
            f"{d // 3600}:{d // 60 % 60:02d}:{d % 60:02d} [H:MM:SS] video.\n")


def describe(clip, hidden=None):
    """The description; or a wrong one, in which the object of that number does what it is never trained to do."""
    if not clip.objects:
        return "Nothing is there."
    motions = [hidden_motion(o.colour, o.shape) if k == hidden else o.motion for k, o in enumerate(clip.objects)]
    return "A " + " while a ".join(f"{o.colour} {o.shape} {VERB[m]}" for o, m in zip(clip.objects, motions)) + "."


def yes_no(rng, clip, yes=None, hide=False):
    """A question and its answer; which answer is a coin's choice unless `yes` says it. With `hide`, nothing is asked
    about an object's hidden motion: the answer would always be no, and that would be learned."""
    yes = bool(rng.integers(2)) if yes is None else yes
    objects = clip.objects
    moving = any(o.motion in MOTIONS[:4] for o in objects)
    kinds = {"there": 4, "does": 4 if objects or not yes else 0, "background": 1,
             "moving": 2 if moving == yes else 0, "empty": 1 if (not objects) == yes else 0}
    if yes and not objects:
        kinds["there"], kinds["empty"] = 0, 4
    weights = np.array(list(kinds.values()), float)
    kind = pick(rng, list(kinds), weights / weights.sum())
    things = [(c, s) for c in COLOURS for s in SHAPES]
    there = [(o.colour, o.shape) for o in objects]
    absent = [t for t in things if t not in there]
    near = [t for t in absent if any((t[0] == c) != (t[1] == s) for c, s in there)]  # half right
    if near and rng.random() < 0.8:
        absent = near
    if kind == "empty":
        text = "Is the scene empty?"
    elif kind == "moving":
        text = "Is anything moving?"
    elif kind == "background":
        text = f"Is the background {clip.background if yes else pick(rng, [b for b in BACKGROUNDS if b != clip.background])}?"
    elif kind == "there":
        text = "Is there a {} {}?".format(*pick(rng, there if yes else absent))
    elif not yes and (not objects or rng.random() < 0.2):  # about something that is not there
        colour, shape = pick(rng, absent)
        motions = [o.motion for o in objects] if objects and rng.random() < 0.5 else MOTIONS
        motions = [m for m in motions if not (hide and held_out(colour, shape, m))] or [m for m in MOTIONS if not held_out(colour, shape, m)]
        text = f"Does the {colour} {shape} {ASK[pick(rng, motions)]}?"
    else:
        o = pick(rng, objects)
        wrong = [m for m in MOTIONS if m != o.motion and not (hide and held_out(o.colour, o.shape, m))]
        others = [p.motion for p in objects if p.motion in wrong]
        if others and rng.random() < 0.3:
            wrong = others
        text = f"Does the {o.colour} {o.shape} {ASK[o.motion if yes else pick(rng, wrong)]}?"
    return text + (" Answer yes or no." if rng.random() < 0.7 else ""), "Yes." if yes else "No."


def choice(rng, clip, hide=False):
    """A question with given answers, worded as camscribe words it (src/decision.rs), and the answer. With `hide`, an
    object's hidden motion is no answer: it would never be right, and that would be learned."""
    objects = clip.objects
    asked = [("What colour is the background?", clip.background, BACKGROUNDS),
             ("How many objects are there?", COUNT[len(objects)], COUNT)] * (1 if objects else 2)
    for o in objects:
        alone = len({p.shape for p in objects}) == len(objects)
        thing = "object" if len(objects) == 1 and rng.random() < 0.3 else o.shape
        asked.append((f"What shape is the {o.colour} object?", o.shape, SHAPES))
        if alone:
            asked.append((f"What colour is the {thing}?", o.colour, COLOURS))
        if o.motion in WAY:
            ways = [WAY[m] for m in WAY if m == o.motion or not (hide and held_out(o.colour, o.shape, m))]
            asked += [(f"Where does the {o.colour} {o.shape} move?", WAY[o.motion], ways)] * 3
    text, right, answers = asked[rng.integers(len(asked))]
    others = [a for a in answers if a != right]
    rng.shuffle(others)
    offered = [right] + others[:rng.integers(1, len(others) + 1)]
    rng.shuffle(offered)
    return f"{text}\nAnswer with one of these: {', '.join(offered)}.", right


# ----------------------------------------------------------------------------- the sketch, for training

def lanczos(x):
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)


EDGE_X = np.linspace(-3, 3, 241)
EDGE_Y = 1 - np.cumsum(lanczos(EDGE_X)) / lanczos(EDGE_X).sum()  # what a LANCZOS resize makes of a sharp edge


@functools.cache
def stretch(n):
    """The processor's second resize along one axis, from n pixels to SIDE, as a matrix."""
    m = lanczos((np.arange(n) + 0.5)[None] - (np.arange(SIDE) + 0.5)[:, None] * n / SIDE) if n < SIDE else np.eye(n)
    return (m / m.sum(1, keepdims=True)).astype(np.float32)


def outline(rng, shape, u, v):
    """Distance to the outline in units of the object's radius, negative inside; v points down."""
    if shape == "circle":
        return np.hypot(u, v) - 1
    if shape == "square":
        return np.maximum(np.abs(u), np.abs(v)) - rng.uniform(0.82, 0.95)
    base, width = rng.uniform(0.45, 0.8), rng.uniform(0.82, 1)
    return np.maximum(v - base, ((base + 1) * np.abs(u) - width * (v + 1)) / np.hypot(base + 1, width))


def soften(x, sigma):
    """Three-tap blur over the last two axes."""
    k = np.exp(-0.5 / max(sigma, 0.05) ** 2)
    for axis in (-2, -1):
        pad = [(0, 0)] * x.ndim
        pad[axis] = (1, 1)
        p = np.moveaxis(np.pad(x, pad, mode="edge"), axis, 0)
        x = np.moveaxis((k * p[:-2] + p[1:-1] + k * p[2:]) / (1 + 2 * k), 0, axis)
    return x


def sketch(rng, clip):
    """The clip as the model sees it, uint8 (frames, 3, SIDE, SIDE)."""
    w, h = small_size(clip.size)
    n, moments = len(clip.times), clip.moments()
    xs, ys = np.arange(w, dtype=np.float32) + 0.5, np.arange(h, dtype=np.float32)[:, None] + 0.5
    ground = np.clip(rng.uniform(*GROUND_RANGE[clip.background]) + rng.uniform(-8, 8, 3), 0, 255)
    angle, amount = rng.uniform(0, 2 * np.pi), rng.uniform(0, 20) * (rng.random() < 0.3)
    shade = ((xs / w - 0.5) * np.cos(angle) + (ys / h - 0.5) * np.sin(angle)) * amount
    img = np.repeat((ground[:, None, None] + shade)[None], n, 0).astype(np.float32)
    for o in clip.objects:
        colour = np.array([rng.uniform(*r) for r in COLOUR_RANGE[o.colour]], np.float32)
        at = (o.path(moments) + rng.normal(0, 0.1, (n, 2))).astype(np.float32)
        u, v = (xs - at[:, 0, None, None]) / o.radius, (ys - at[:, 1, None, None]) / o.radius
        alpha = np.interp(outline(rng, o.shape, u, v) * o.radius, EDGE_X, EDGE_Y).astype(np.float32)
        alpha *= o.shown(moments)[:, None, None]
        img += alpha[:, None] * (colour[:, None, None] - img)
    if rng.random() < 0.4:
        img = soften(img, rng.uniform(0.2, 0.7))
    img = np.clip(img, 0, 255) * (1 + rng.uniform(-0.05, 0.05) + rng.normal(0, 0.01, (n, 1, 1, 1)))
    if rng.random() < 0.5:
        img += rng.normal(0, rng.uniform(0, 4), img.shape)
    img = stretch(h) @ img.astype(np.float32) @ stretch(w).T
    return np.clip(np.rint(img), 0, 255).astype(np.uint8)


# ----------------------------------------------------------------------------- the camera, as in real use

def draw(clip, moment):
    """One full-size frame at a moment between 0 and 1, a Pillow image without any smoothing."""
    scale = max(clip.size) / SIDE
    img = Image.new("RGB", clip.size, GROUND_RGB[clip.background])
    d, moment = ImageDraw.Draw(img), np.array([moment])
    for o in clip.objects:
        if not o.shown(moment)[0]:
            continue
        (x, y), r = o.path(moment)[0] * scale, o.radius * scale
        if o.shape == "circle":
            d.ellipse((x - r, y - r, x + r, y + r), fill=COLOUR_RGB[o.colour])
        elif o.shape == "square":
            d.rectangle((x - 0.9 * r, y - 0.9 * r, x + 0.9 * r, y + 0.9 * r), fill=COLOUR_RGB[o.colour])
        else:
            d.polygon([(x, y - r), (x + 0.87 * r, y + 0.5 * r), (x - 0.87 * r, y + 0.5 * r)], fill=COLOUR_RGB[o.colour])
    return img


def camera(clip):
    """The clip's frames as the camera gives them, uint8 (frames, height, width, 3)."""
    return np.stack([np.asarray(draw(clip, m)) for m in clip.moments()])


def shrink(frames):
    """Full-size frames as the model sees them: two LANCZOS resizes, uint8 (frames, 3, SIDE, SIDE)."""
    small = small_size((frames.shape[2], frames.shape[1]))
    out = [Image.fromarray(f).resize(small, Image.LANCZOS).resize((SIDE, SIDE), Image.LANCZOS) for f in frames]
    return np.stack([np.asarray(f) for f in out]).transpose(0, 3, 1, 2)
