// A form of filters for events: words, camera, alert, and from when to when. It reads and writes a query.
import { h } from "./dom.js";
import { fromField, toField } from "./time.js";

const LABELS = { q: "Words", camera: "Camera", alert: "Alert switched", from: "From", to: "To" };
const EVERY = { camera: "Every camera", alert: "Every event" };

export class Filters {
  #fields = {};

  /**
   * @param {string[]} names of the fields: q, camera, alert, from, to
   * @param {Object<string, [string, string][]>} choices of the fields camera and alert: value and text
   * @param {string} action what the button says
   * @param {(query: Object<string, string>) => void} onSubmit
   */
  constructor({ names, choices, action, onSubmit }) {
    const rows = names.map((name) => {
      const field = this.#make(name, choices);
      this.#fields[name] = field;
      return h("div", { class: `field field-${name}` }, h("label", { for: field.id }, LABELS[name]), field);
    });
    this.element = h(
      "form",
      { class: "filters", onsubmit: submit },
      ...rows,
      h(
        "div",
        { class: "actions" },
        h("button", { type: "submit" }, action),
        h("button", { type: "button", class: "plain", onclick: () => this.#clear(onSubmit) }, "Clear"),
      ),
    );
    const read = () => this.#read();
    function submit(event) {
      event.preventDefault();
      onSubmit(read());
    }
  }

  /** @param {Object<string, string>} query */
  write(query) {
    for (const [name, field] of Object.entries(this.#fields)) {
      const value = query[name] ?? "";
      if (field.tagName === "SELECT" && ![...field.options].some((it) => it.value === value)) {
        field.append(h("option", { value }, value));
      }
      field.value = field.type === "datetime-local" ? toField(value) : value;
    }
  }

  #make(name, choices) {
    const id = `filter-${name}`;
    if (name === "q") return h("input", { id, type: "search", autocomplete: "off", maxlength: "500" });
    if (!(name in EVERY)) return h("input", { id, type: "datetime-local" });
    const options = [["", EVERY[name]], ...choices[name]];
    return h(
      "select",
      { id },
      ...options.map(([value, text]) => h("option", { value, dir: "auto" }, text)),
    );
  }

  #read() {
    return Object.fromEntries(
      Object.entries(this.#fields).map(([name, field]) => {
        const value = field.value.trim();
        return [name, field.type === "datetime-local" ? fromField(value) : value];
      }),
    );
  }

  #clear(onSubmit) {
    this.write({});
    onSubmit(this.#read());
  }
}
