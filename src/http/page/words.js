// Shows what a model or a person wrote: isolated from the text around it; the rest of a long one on demand.
import { h } from "./dom.js";

const LONGEST = 420;
const MOST_LINES = 7;

/** The beginning of a text, if it is too long to be shown at once; else all of it. */
export function beginning(text, longest = LONGEST) {
  const lines = text.split("\n", MOST_LINES + 1);
  const few = lines.length > MOST_LINES ? lines.slice(0, MOST_LINES).join("\n") : text;
  if (few.length <= longest) return few;
  const before = few.slice(0, longest).replace(/[\ud800-\udbff]$/, "");
  const space = before.lastIndexOf(" ");
  return space > longest / 2 ? before.slice(0, space) : before;
}

/** A paragraph of foreign words that can be replaced; long ones have a button for the rest. */
export class Words {
  #text = h("p", { class: "words", dir: "auto" });
  #button = h("button", {
    type: "button",
    class: "plain more",
    hidden: true,
    onclick: () => this.#toggle(),
  });
  element = h("div", null, this.#text, this.#button);
  #whole = null;
  #open = false;

  constructor(text) {
    if (text != null) this.update(text);
  }

  update(text) {
    if (text === this.#whole) return;
    this.#whole = text;
    this.#draw();
  }

  #toggle() {
    this.#open = !this.#open;
    this.#draw();
  }

  #draw() {
    const short = beginning(this.#whole);
    const isLong = short.length < this.#whole.length;
    this.#text.textContent = isLong && !this.#open ? `${short}…` : this.#whole;
    this.#button.hidden = !isLong;
    const rest = (this.#whole.length - short.length).toLocaleString("en-GB");
    this.#button.textContent = this.#open ? "less" : `more (${rest} characters)`;
    this.#button.setAttribute("aria-expanded", String(this.#open));
  }
}

/** Parts of a text with its hits marked, as a search returns them. */
export function snippet(parts) {
  const marked = parts.map(({ text, hit }) => (hit ? h("mark", null, beginning(text)) : beginning(text)));
  return h("p", { class: "words", dir: "auto" }, ...marked);
}
