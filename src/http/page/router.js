// Shows the view that the address names. Views that were left stay as they were for the way back.

const MOST_KEPT = 8;

/**
 * @typedef {Object} View
 * @property {Element} element
 * @property {string} title
 * @property {(change: Object|null) => void} update null: it was just shown, everything may have changed
 * @property {() => void} [close] it will not be shown again
 */

/** An address of the page. What is empty is left out of the query. */
export function address(parts, query = {}) {
  const filled = Object.entries(query).filter(([, value]) => value != null && value !== "");
  const search = filled.length ? `?${new URLSearchParams(filled)}` : "";
  return `#/${parts.map(encodeURIComponent).join("/")}${search}`;
}

/** The name, the id and the query of the address that is shown. */
export function place() {
  const [path, search = ""] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const [name, id] = path.split("/").map(decoded);
  return { name, id, query: Object.fromEntries(new URLSearchParams(search)) };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export class Router {
  /** By the number of the entry in the history: view, name, hash and how far it was scrolled. */
  #kept = new Map();
  #current = null;
  #last = Date.now();
  #covered = false;

  /**
   * @param {Element} main
   * @param {(place: {name: string, id: string, query: Object}) => View} make
   * @param {(view: View, name: string) => void} onShow
   */
  constructor(main, make, onShow) {
    Object.assign(this, { main, make, onShow });
    history.scrollRestoration = "manual";
  }

  start() {
    addEventListener("popstate", () => this.#go(true));
    this.#go(false);
  }

  get view() {
    return this.#kept.get(this.#current)?.view;
  }

  /** Gives the address of what is shown another query, without another entry in the history. */
  rename(hash) {
    history.replaceState(history.state, "", hash);
    const kept = this.#kept.get(this.#current);
    if (kept) kept.hash = hash;
  }

  /** Shows something in the place of the view, such as the login form; null: the view again. */
  cover(element) {
    this.#covered = element != null;
    if (element) this.main.replaceChildren(element);
    else this.#go(false);
  }

  #go(moved) {
    if (this.#covered) return;
    const left = this.#kept.get(this.#current);
    if (left && moved) left.scroll = scrollY;
    const known = history.state?.entry;
    const entry = known ?? ++this.#last;
    if (known == null) history.replaceState({ entry }, "");
    let kept = this.#kept.get(entry);
    if (!kept || kept.hash !== location.hash) {
      kept?.view.close?.();
      const at = place();
      kept = { view: this.make(at), hash: location.hash, name: at.name, scroll: 0 };
    }
    this.#kept.delete(entry);
    this.#kept.set(entry, kept);
    this.#current = entry;
    this.#forgetOld();
    this.main.replaceChildren(kept.view.element);
    kept.view.update(null);
    this.onShow(kept.view, kept.name);
    if (!moved) return;
    (kept.view.focus ?? this.main.querySelector("h1"))?.focus({ preventScroll: true });
    scrollTo(0, kept.scroll);
  }

  #forgetOld() {
    for (const [entry, { view }] of this.#kept) {
      if (this.#kept.size <= MOST_KEPT) return;
      this.#kept.delete(entry);
      view.close?.();
    }
  }
}
