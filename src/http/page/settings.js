// What a person can set of a camera: whether it is switched on, and its prompt.
import { changeCamera } from "./api.js";
import { field, h, setAttribute, setText } from "./dom.js";

/** A change that the stream has not told of after so long was refused somewhere. */
const PATIENCE_MS = 5000;
const REFUSED = "Settings cannot be changed here: mqtt.commands is off in the configuration.";

export class Settings {
  #switch = h(
    "button",
    { type: "button", role: "switch", class: "switch", onclick: () => this.#toggle() },
    h("span", { class: "knob", "aria-hidden": "true" }),
    h("span", null, "Watch this camera"),
  );
  #prompt = h("textarea", {
    id: "prompt",
    rows: "3",
    maxlength: "4000",
    dir: "auto",
    oninput: () => this.#edited(),
  });
  #save = h("button", { type: "submit", class: "primary" }, "Save");
  #undo = h(
    "button",
    { type: "button", class: "plain", onclick: () => this.#discard() },
    "Discard changes",
  );
  #reset = h(
    "button",
    { type: "button", class: "plain", onclick: () => this.#change({ prompt: "" }) },
    "Reset to the configuration",
  );
  #status = h("p", { class: "sentence", role: "status" });
  #camera = null;
  #dirty = false;
  #timer = 0;
  #awaited = false;

  constructor() {
    const form = h(
      "form",
      { onsubmit: (event) => this.#submit(event) },
      field("Prompt", this.#prompt),
      h("div", { class: "actions" }, this.#save, this.#undo, this.#reset),
    );
    this.element = h(
      "section",
      { class: "panel", "aria-labelledby": "settings-title" },
      h("h2", { id: "settings-title" }, "Settings"),
      this.#switch,
      form,
      this.#status,
    );
  }

  /** @param {boolean} allowed whether the daemon takes commands */
  update(camera, allowed) {
    const before = this.#camera ?? camera;
    const changed = camera.prompt !== before.prompt || camera.enabled !== before.enabled;
    this.#camera = camera;
    this.allowed = allowed;
    setAttribute(this.#switch, "aria-checked", String(camera.enabled));
    if (!this.#dirty && this.#prompt.value !== camera.prompt) this.#prompt.value = camera.prompt;
    if (changed && this.#awaited) {
      this.#awaited = false;
      this.#finish("Done.");
    }
    this.#edited();
    if (!allowed) setText(this.#status, REFUSED);
  }

  #edited() {
    this.#dirty = this.#prompt.value !== this.#camera.prompt;
    const busy = this.#timer !== 0;
    this.#switch.disabled = this.#reset.disabled = !this.allowed || busy;
    this.#prompt.readOnly = !this.allowed;
    this.#save.disabled = !this.allowed || busy || !this.#dirty || !this.#prompt.value.trim();
    this.#undo.hidden = !this.#dirty;
  }

  #discard() {
    this.#prompt.value = this.#camera.prompt;
    this.#edited();
    this.#prompt.focus();
  }

  #toggle() {
    this.#change({ enabled: !this.#camera.enabled });
  }

  #submit(event) {
    event.preventDefault();
    this.#change({ prompt: this.#prompt.value.trim() });
  }

  /** Asks for a change; the stream tells when it holds. */
  async #change(change) {
    setText(this.#status, "Changing…");
    this.#awaited = true;
    this.#timer = setTimeout(() => this.#finish("Accepted."), PATIENCE_MS);
    this.#edited();
    try {
      await changeCamera(this.#camera.id, change);
      if ("prompt" in change) this.#prompt.value = change.prompt || this.#camera.prompt;
    } catch (failure) {
      this.#awaited = false;
      this.#finish(`Not changed: ${failure.message}`);
    }
  }

  #finish(sentence) {
    clearTimeout(this.#timer);
    this.#timer = 0;
    setText(this.#status, sentence);
    if (this.#camera) this.#edited();
  }
}
