// Makes and updates elements. Text always becomes a text node: nothing here reads a string as HTML.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Makes an element. `on…` properties are listeners; `true` is an empty attribute; null and false are none.
 * @param {string} tag
 * @param {Object<string, any>} [props]
 * @param {...(Node|string|null)} children
 */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else setAttribute(element, name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/** An icon of index.html, hidden from screen readers: there is always text beside it. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** Shows another icon in an element that `icon` made. */
export function setIcon(svg, name) {
  setAttribute(svg.firstChild, "href", `#i-${name}`);
}

/** Text from a model, a camera or the configuration: its direction of writing stays its own. */
export function foreign(text, props) {
  return h("bdi", { dir: "auto", ...props }, text);
}

/** A control with its label; the control has an id. */
export function field(label, control) {
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control);
}

/** Sets an element's text if it is another one. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets or removes an attribute if that changes anything. */
export function setAttribute(element, name, value) {
  if (value == null || value === false) element.removeAttribute(name);
  else {
    const text = value === true ? "" : String(value);
    if (element.getAttribute(name) !== text) element.setAttribute(name, text);
  }
}

/** The children of an element by key: what stays is updated in place, and nothing else is touched. */
export class Keyed {
  #parts = new Map();

  /**
   * @param {Element} parent
   * @param {(key: string, value: any) => {element: Element, update: (value: any) => void}} make
   */
  constructor(parent, make) {
    this.parent = parent;
    this.make = make;
  }

  /** @param {Iterable<[string, any]>} entries in the order to be shown */
  update(entries) {
    const kept = new Set();
    let place = this.parent.firstElementChild;
    for (const [key, value] of entries) {
      kept.add(key);
      let part = this.#parts.get(key);
      if (!part) this.#parts.set(key, (part = this.make(key, value)));
      part.update(value);
      if (part.element === place) place = place.nextElementSibling;
      else this.parent.insertBefore(part.element, place);
    }
    for (const [key, part] of this.#parts) {
      if (kept.has(key)) continue;
      part.element.remove();
      this.#parts.delete(key);
    }
  }

  get(key) {
    return this.#parts.get(key);
  }

  values() {
    return this.#parts.values();
  }
}
