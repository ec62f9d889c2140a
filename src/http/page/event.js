// One stored event: the frames that the model saw, what it said, and how to check that.
import { frameAddress, getEvent } from "./api.js";
import { Answers, Alerts } from "./answers.js";
import { foreign, h, icon, setAttribute, setText } from "./dom.js";
import { PatientImage, patiently } from "./picture.js";
import { address } from "./router.js";
import { clock, dayAndClock, fullTime, now, offset, timeElement } from "./time.js";
import { Words } from "./words.js";

const NO_FRAMES = "No frames of this event are kept.";
const GAP = "; frames are missing, or the clock was set back";
const COPIED_MS = 2000;
const YOUNG_MS = 60000;

/** The frames: a large one, and all of them in a row to choose from. */
class Frames {
  #shot = new PatientImage();
  #caption = h("p");
  #number = 0;

  constructor(event, frames) {
    this.event = event;
    this.frames = frames;
    this.buttons = frames.map(({ offset_s }, n) => {
      const small = new PatientImage();
      small.load(frameAddress(event.id, n));
      const label = `Frame ${n + 1}, ${offset(offset_s)}`;
      return h(
        "button",
        { type: "button", "aria-label": label, onclick: () => this.show(n) },
        small.element,
        h("span", null, offset(offset_s)),
      );
    });
    const { width, height } = frames[0];
    setAttribute(this.#shot.image, "width", width);
    setAttribute(this.#shot.image, "height", height);
    const steps = h(
      "div",
      { class: "steps" },
      this.#step(-1, "Frame before", "left"),
      this.#caption,
      this.#step(1, "Frame after", "right"),
    );
    const items = this.buttons.map((button) => h("li", null, button));
    this.element = h(
      "div",
      { class: "frames" },
      this.#shot.element,
      steps,
      h("ul", { class: "strip", "aria-label": "Frames" }, ...items),
    );
  }

  #step(by, name, shape) {
    const onclick = () => this.show(this.#number + by);
    return h("button", { type: "button", class: "step", "aria-label": name, onclick }, icon(shape));
  }

  get number() {
    return this.#number;
  }

  show(number) {
    const last = this.frames.length - 1;
    this.#number = Math.min(Math.max(number, 0), last);
    const { offset_s } = this.frames[this.#number];
    const time = new Date(Date.parse(this.event.clip.start) + offset_s * 1000).toISOString();
    const words = `Frame ${this.#number + 1} of ${last + 1}, ${offset(offset_s)}`;
    this.#shot.load(frameAddress(this.event.id, this.#number));
    setAttribute(this.#shot.image, "alt", words);
    this.#caption.replaceChildren(`${words}, `, timeElement(time, clock));
    this.buttons.forEach((button, n) =>
      setAttribute(button, "aria-current", n === this.#number ? "true" : null),
    );
  }
}

/** A text to copy, such as an id or a command, and the button that copies it. */
function copyable(text, label) {
  const code = h("code", { class: "copy-text", dir: "ltr" }, text);
  const button = h("button", { type: "button", class: "plain" }, label);
  button.addEventListener("click", async () => {
    setText(button, (await copied(text, code)) ? "Copied" : "Selected");
    setTimeout(() => setText(button, label), COPIED_MS);
  });
  return [code, button];
}

/** Copies a text; where the browser allows that to no page without HTTPS, its element is selected. */
async function copied(text, element) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    getSelection().selectAllChildren(element);
    return false;
  }
}

function viewInWords(view) {
  if (!view) return "The whole picture";
  const crop = view.crop && `cropped to ${view.crop}`;
  const masks = view.masks?.length && `black under the masks ${view.masks.join(", ")}`;
  return [crop, masks].filter(Boolean).join("; ");
}

const CLOCKS = { camera: "by the camera’s clock", arrival: "when frames arrived", file: "by the file" };

/** What is told of an event beside its words: names and contents. */
function facts(event) {
  const { clip, model, tokens, timing_ms: timing, dropped } = event;
  const end = event.finish_reason === "length" ? "; the words were cut at the longest answer" : "";
  const lost = dropped.clips + dropped.failed;
  return [
    ["Clip", `${fullTime(clip.start)} to ${clock(clip.end)}, ${CLOCKS[clip.clock] ?? clip.clock}`],
    ["At the source", `${clip.width} × ${clip.height} pixels${clip.gap ? GAP : ""}`],
    ["View", foreign(viewInWords(event.view))],
    ["Prompt", new Words(event.prompt).element],
    ["Model", foreign([model.id, model.revision, model.device, model.dtype].filter(Boolean).join(", "))],
    ["Time taken", `${timing.total} ms, ${timing.queued} ms of them in the queue`],
    ["Tokens", `${tokens.prompt} in, ${tokens.generated} out${end}`],
    ["Lost before it", lost ? `${dropped.clips} clips dropped, ${dropped.failed} failed` : "no clip"],
    ["Id", h("span", { class: "copyable" }, ...copyable(event.id, "Copy the id"))],
  ];
}

export class EventView {
  title = "Event";
  #frames = null;
  #abort = new AbortController();
  #body = h("div", { class: "event-body" }, h("p", { class: "sentence", role: "status" }, "Loading…"));
  #camera = h("a", null);
  #time = h("span");
  #moves = h("nav", { class: "moves", "aria-label": "Events of this camera" });

  constructor({ store, router }, { id, query }) {
    Object.assign(this, { store, router, id, first: Number.parseInt(query.frame ?? "0", 10) || 0 });
    this.element = h(
      "div",
      { class: "event-view" },
      h("div", { class: "page-head" }, h("h1", { tabindex: "-1" }, this.#camera, this.#time), this.#moves),
      this.#body,
    );
    this.#load();
  }

  update() {
    if (!this.event) return;
    const { camera } = this.event;
    setText(this.#camera, this.store.cameras.get(camera)?.name ?? camera);
  }

  close() {
    this.#abort.abort();
  }

  /** Left and right step through the frames. */
  key({ key }) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[key];
    if (!by || !this.#frames) return false;
    this.#frames.show(this.#frames.number + by);
    return true;
  }

  async #load() {
    const { signal } = this.#abort;
    let found = null;
    let failure = null;
    await patiently(async () => {
      if (signal.aborted) return true;
      try {
        found = await getEvent(this.id, signal);
      } catch (error) {
        failure = error;
      }
      return found != null || failure.status !== 404 || !isYoung(this.id);
    });
    if (signal.aborted) return;
    if (found) this.#draw(found);
    else {
      this.#body.firstElementChild.textContent = failure.sentence;
      setText(this.#time, "Event");
    }
  }

  #draw({ event, frames, exact, older, newer }) {
    this.event = event;
    setAttribute(this.#camera, "href", address(["camera", event.camera]));
    this.#camera.dir = "auto";
    this.#time.replaceChildren(", ", timeElement(event.clip.start, dayAndClock));
    this.#moves.append(
      ...[
        ["Older", older],
        ["Newer", newer],
      ]
        .filter(([, id]) => id)
        .map(([name, id]) => h("a", { href: address(["event", id]) }, name)),
    );
    this.#moves.hidden = !older && !newer;
    this.update();
    if (frames.length) {
      this.#frames = new Frames(event, frames);
      this.#frames.show(this.first);
    }
    const alerts = new Alerts("since");
    alerts.update(Object.entries(event.alerts ?? {}));
    const answers = new Answers({ all: true });
    answers.update(event.answers);
    const said = h(
      "section",
      { class: "said", "aria-label": "What the model said" },
      alerts.element,
      event.description ? new Words(event.description).element : null,
      answers.element,
    );
    const list = h(
      "dl",
      { class: "facts" },
      ...facts(event).map(([name, content]) => h("div", null, h("dt", null, name), h("dd", null, content))),
    );
    const words = h("div", { class: "event-words" }, said, frames.length ? check(event.id, exact) : null);
    this.#body.replaceChildren(
      this.#frames?.element ?? h("p", { class: "sentence" }, NO_FRAMES),
      words,
      h("section", { class: "panel event-facts", "aria-label": "Facts" }, list),
    );
  }
}

/** Whether an event, by the time in its id, is so new that the history may not have it yet. */
function isYoung(id) {
  return now() - Number.parseInt(id.replace("-", "").slice(0, 12), 16) < YOUNG_MS;
}

/** How a person can check what the model said. */
function check(id, exact) {
  const [command, copy] = copyable(`camscribe replay ${id}`, "Copy the command");
  const words = exact
    ? [
        h("p", null, "These are the very pixels that the model saw."),
        h("p", null, command, " describes them again and compares the words."),
        copy,
      ]
    : [
        h("p", null, "These frames are JPEG: good to look at, not the very pixels."),
        h(
          "p",
          null,
          "With ",
          h("code", null, 'history.frame_format = "lossless"'),
          " ",
          h("code", null, "camscribe replay"),
          " can prove the words.",
        ),
      ];
  return h(
    "section",
    { class: "panel", "aria-labelledby": "check-title" },
    h("h2", { id: "check-title" }, "Check it"),
    ...words,
  );
}
