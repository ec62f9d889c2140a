// The overview: a tile for each camera, with filters where there are many.
import { Answers, Alerts } from "./answers.js";
import { Keyed, foreign, h, icon, setAttribute, setText } from "./dom.js";
import { count } from "./numbers.js";
import { Picture } from "./picture.js";
import { address } from "./router.js";
import { StateMark, staleness } from "./states.js";
import { alertsOn } from "./store.js";
import { ageElement, setAge } from "./time.js";
import { beginning } from "./words.js";

/** With more cameras than this there is a field for their names. */
const FEW = 6;

class Tile {
  #picture = new Picture();
  #name = foreign("");
  #state = new StateMark();
  #why = h("p", { class: "why", dir: "auto" });
  #alerts = new Alerts();
  #words = h("p", { class: "words", dir: "auto" });
  #answers = new Answers();
  #age = ageElement();
  #staleWord = h("span");
  #stale = h("span", { class: "stale" }, icon("old"), this.#staleWord);

  constructor(id) {
    const link = h("a", { href: address(["camera", id]) }, this.#name);
    const head = h("div", { class: "tile-head" }, h("h2", null, link), this.#state.element);
    const foot = h("p", { class: "tile-foot" }, this.#age, this.#stale);
    this.element = h(
      "li",
      { class: "tile" },
      h("div", { class: "tile-top" }, this.#picture.element, this.#alerts.element),
      head,
      this.#why,
      this.#words,
      this.#answers.element,
      foot,
    );
  }

  /** Whether the tile has the name and the state that the filters ask for. */
  matches(text, kind) {
    const { name, id, state } = this.camera;
    if (kind === "alert" && alertsOn(this.camera).length === 0) return false;
    if (kind === "away" && state === "online") return false;
    return `${name}\n${id}`.toLowerCase().includes(text);
  }

  update({ camera, link }) {
    if (camera === this.camera && link === this.link) return;
    Object.assign(this, { camera, link });
    const on = alertsOn(camera);
    setText(this.#name, camera.name);
    this.#state.update(camera.state);
    setText(this.#why, camera.why ?? "");
    this.#why.hidden = !camera.why;
    this.#alerts.update(on.map((name) => [name, camera.alert_states[name]]));
    setText(this.#words, wordsOf(camera));
    this.#answers.update(camera.latest?.answers);
    this.#picture.update(camera);
    setAge(this.#age, camera.seen);
    setAttribute(this.element, "data-alert", on.length > 0);
    this.tick();
  }

  /** Time has passed: what is shown may have become old. */
  tick() {
    const old = staleness(this.camera, this.link);
    this.#stale.hidden = old == null;
    setAttribute(this.element, "data-stale", old != null);
    setText(this.#staleWord, old ?? "");
  }
}

function wordsOf({ latest, state }) {
  if (latest) return beginning(latest.description);
  return state === "disabled" ? "" : "Nothing described yet.";
}

export class Overview {
  title = "Cameras";
  #summary = h("p", { class: "summary" });
  #grid = h("ul", { class: "tiles" });
  #tiles = new Keyed(this.#grid, (id) => new Tile(id));
  #filter = h("input", {
    type: "search",
    id: "tile-filter",
    autocomplete: "off",
    oninput: () => this.#sift(),
  });
  #kinds = { all: kindButton("All"), alert: kindButton("Alert on"), away: kindButton("Not online") };
  #kind = "all";
  #empty = h("p", { class: "sentence", hidden: true });

  constructor({ store }) {
    this.store = store;
    for (const [kind, button] of Object.entries(this.#kinds)) {
      button.addEventListener("click", () => {
        this.#kind = kind;
        this.#sift();
      });
    }
    const label = h("label", { for: "tile-filter" }, "Filter by name");
    const buttons = h(
      "div",
      { class: "segments", role: "group", "aria-label": "Which cameras" },
      ...Object.values(this.#kinds),
    );
    this.tools = h("div", { class: "tools" }, h("div", { class: "field" }, label, this.#filter), buttons);
    this.element = h(
      "div",
      { class: "overview" },
      h("div", { class: "page-head" }, h("h1", { tabindex: "-1" }, "Cameras"), this.#summary),
      this.tools,
      this.#empty,
      this.#grid,
    );
  }

  update(change) {
    const { cameras, link } = this.store;
    const everything = !change || change.list || change.link;
    if (everything) this.#tiles.update([...cameras].map(([id, camera]) => [id, { camera, link }]));
    else for (const id of change.cameras) this.#tiles.get(id)?.update({ camera: cameras.get(id), link });
    if (everything || change.cameras.size > 0) this.#sift();
  }

  tick() {
    for (const tile of this.#tiles.values()) tile.tick();
  }

  #sift() {
    const cameras = [...this.store.cameras.values()];
    const text = this.#filter.value.trim().toLowerCase();
    let shown = 0;
    for (const tile of this.#tiles.values()) {
      const matches = tile.matches(text, this.#kind);
      tile.element.hidden = !matches;
      if (matches) shown += 1;
    }
    const online = cameras.filter(({ state }) => state === "online").length;
    const alerting = cameras.filter((camera) => alertsOn(camera).length > 0).length;
    const alerts = alerting ? `, ${alerting} with an alert on` : "";
    const total = count(cameras.length, "camera");
    setText(this.#summary, cameras.length ? `${total}, ${online} online${alerts}` : "");
    this.tools.hidden = cameras.length <= FEW;
    const counts = { all: cameras.length, alert: alerting, away: cameras.length - online };
    for (const [kind, button] of Object.entries(this.#kinds)) {
      setText(button.lastChild, String(counts[kind]));
      setAttribute(button, "aria-pressed", String(kind === this.#kind));
    }
    this.#empty.hidden = shown > 0;
    setText(this.#empty, this.#emptiness(cameras.length));
  }

  #emptiness(number) {
    if (!this.store.loaded) return "Loading the cameras…";
    return number ? "No camera matches." : "No camera is configured.";
  }
}

function kindButton(text) {
  return h("button", { type: "button" }, `${text} `, h("span", { class: "badge" }));
}
