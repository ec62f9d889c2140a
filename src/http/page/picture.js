// Shows images of the daemon: frames, and the newest picture of a camera. What is not there yet, because its
// event has just come, is asked for again a little later.
import { snapshotAddress } from "./api.js";
import { h, setText } from "./dom.js";

const PAUSES_MS = [1000, 3000];
const NONE = "No picture yet";

/** Calls `attempt` until it returns true; after the last pause what it returned is final. */
export async function patiently(attempt) {
  for (const pause of PAUSES_MS) {
    if (await attempt()) return true;
    await new Promise((done) => setTimeout(done, pause));
  }
  return attempt();
}

/** An image with a box of its own, which says so when there is none. */
export class PatientImage {
  #none = h("span", { class: "no-picture", hidden: true });
  #asked = 0;

  /**
   * @param {Object<string, any>} props of the image
   * @param {string} missing what the box says for as long as no image was asked for
   */
  constructor(props, missing = "") {
    this.image = h("img", { alt: "", decoding: "async", ...props });
    this.element = h("span", { class: "shot" }, this.image, this.#none);
    if (missing) this.clear(missing);
  }

  /** Shows nothing but words. */
  clear(words) {
    this.#asked += 1;
    this.#say(words);
  }

  /** Shows an image, whether it is there now or soon. Meanwhile the one before stays. */
  async load(address) {
    const asked = ++this.#asked;
    const attempt = () => asked !== this.#asked || loaded(this.image, address);
    const there = await patiently(attempt);
    if (asked === this.#asked) this.#say(there ? "" : "not kept");
  }

  #say(words) {
    this.image.hidden = words !== "";
    this.#none.hidden = words === "";
    setText(this.#none, words);
  }
}

/** Gives an image its address. Returns whether it came. */
function loaded(image, address) {
  return new Promise((done) => {
    image.onload = () => done(true);
    image.onerror = () => done(false);
    image.src = address;
  });
}

const seen = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) pictures.get(target).setVisible(isIntersecting);
  },
  { rootMargin: "200px" },
);
/** @type {WeakMap<Element, Picture>} */
const pictures = new WeakMap();

/** The newest picture of a camera. It is loaded only while it can be seen, and one at a time. */
export class Picture {
  #shot = new PatientImage({}, NONE);
  element = this.#shot.element;
  #wanted = null;
  #requested = null;
  #busy = false;
  #visible = false;

  constructor() {
    pictures.set(this.element, this);
    seen.observe(this.element);
  }

  update({ id, snapshot }, alt) {
    this.#wanted = snapshot && snapshotAddress(id, snapshot);
    if (alt) this.#shot.image.alt = alt;
    this.#load();
  }

  setVisible(visible) {
    this.#visible = visible;
    this.#load();
  }

  async #load() {
    if (!this.#wanted) {
      this.#requested = null;
      this.#shot.clear(NONE);
      return;
    }
    if (this.#busy || !this.#visible || this.#wanted === this.#requested) return;
    this.#busy = true;
    this.#requested = this.#wanted;
    await this.#shot.load(this.#wanted);
    this.#busy = false;
    this.#load();
  }
}
