// One camera: what it shows now, its settings, a box for questions, and its timeline.
import { Answers, Alerts } from "./answers.js";
import { AskBox } from "./ask.js";
import { foreign, h, icon, setAttribute, setText } from "./dom.js";
import { EventList } from "./eventlist.js";
import { Filters } from "./filters.js";
import { Picture } from "./picture.js";
import { address } from "./router.js";
import { Settings } from "./settings.js";
import { StateMark, staleness } from "./states.js";
import { ageElement, setAge } from "./time.js";
import { Words } from "./words.js";

export class CameraView {
  #name = foreign("");
  #state = new StateMark();
  #why = h("p", { class: "why", dir: "auto" });
  #picture = new Picture();
  #alerts = new Alerts("since");
  #words = new Words("");
  #answers = new Answers({ all: true });
  #age = ageElement();
  #staleWord = h("span");
  #stale = h("span", { class: "stale" }, icon("old"), this.#staleWord);
  #open = h("a", null, "Open this event");
  #missing = h("p", { class: "sentence", hidden: true });
  #settings = new Settings();
  #timeline = new EventList({ byDay: true });
  #filters = null;
  #filtersPlace = h("details", { class: "fold" }, h("summary", null, "Filter"));

  constructor({ store, router }, { id, query }) {
    Object.assign(this, { store, router, id, query, title: id });
    this.ask = new AskBox(id);
    const head = h(
      "div",
      { class: "page-head" },
      h("h1", { tabindex: "-1" }, this.#name),
      this.#state.element,
      h("code", { class: "id" }, id),
    );
    const foot = h("p", { class: "tile-foot" }, this.#age, this.#stale, this.#open);
    const now = h(
      "section",
      { class: "now", "aria-label": "Now" },
      this.#picture.element,
      this.#alerts.element,
      this.#words.element,
      this.#answers.element,
      foot,
    );
    const timeline = h(
      "section",
      { class: "timeline", "aria-labelledby": "timeline-title" },
      h("h2", { id: "timeline-title" }, "Timeline"),
      this.#filtersPlace,
      this.#timeline.element,
    );
    this.columns = h(
      "div",
      { class: "columns" },
      h("div", { class: "side" }, now, this.ask.element, this.#settings.element),
      timeline,
    );
    this.element = h("div", { class: "camera" }, head, this.#why, this.#missing, this.columns);
  }

  update(change) {
    const camera = this.store.cameras.get(this.id);
    this.columns.hidden = !camera;
    this.#missing.hidden = Boolean(camera);
    if (!camera) {
      setText(this.#name, this.id);
      const loading = !this.store.loaded;
      setText(this.#missing, loading ? "Loading…" : "There is no camera of this name (any more).");
      return;
    }
    if (!this.#filters) this.#begin(camera);
    else if (!change) this.#filters.write(this.query);
    if (!change || change.cameras.has(this.id) || change.link || change.node) this.#draw(camera);
    if (change?.gap) this.#timeline.markGap();
    if (!change || change.missed) this.#timeline.refresh();
    for (const event of change?.events ?? []) if (this.#belongs(event)) this.#timeline.add(event);
  }

  tick() {
    const camera = this.store.cameras.get(this.id);
    if (!camera) return;
    const old = staleness(camera, this.store.link);
    this.#stale.hidden = old == null;
    setAttribute(this.element, "data-stale", old != null);
    setText(this.#staleWord, old ?? "");
  }

  close() {
    this.ask.close();
    this.#timeline.close();
  }

  #begin(camera) {
    this.#filters = new Filters({
      names: ["alert", "from", "to"],
      choices: { alert: camera.alerts.map((name) => [name, name]) },
      action: "Show",
      onSubmit: (query) => this.#filter(query),
    });
    this.#filtersPlace.append(this.#filters.element);
    this.#filters.write(this.query);
    this.#filtersPlace.open = Object.keys(this.query).length > 0;
    this.#timeline.show({ ...this.query, camera: this.id });
  }

  #filter(query) {
    this.query = query;
    this.router.rename(address(["camera", this.id], query));
    this.#timeline.show({ ...query, camera: this.id });
  }

  /** Whether a live event is one that the timeline shows. */
  #belongs({ camera, type, alerts, clip }) {
    const { alert, from, to } = this.query;
    if (camera !== this.id || type === "unchanged" || (alert && !alerts?.[alert]?.changed)) return false;
    const after = !from || Date.parse(clip.end) >= Date.parse(from);
    return after && (!to || Date.parse(clip.end) <= Date.parse(to));
  }

  #draw(camera) {
    const { latest } = camera;
    setText(this.#name, camera.name);
    this.#state.update(camera.state);
    setText(this.#why, camera.why ?? "");
    this.#why.hidden = !camera.why;
    this.#picture.update(camera, `Newest picture of ${camera.name}, as the model sees it`);
    this.#alerts.update(Object.entries(camera.alert_states));
    this.#words.update(latest?.description ?? "Nothing described yet.");
    this.#answers.update(latest?.answers);
    setAge(this.#age, camera.seen);
    this.#open.hidden = !latest;
    if (latest) setAttribute(this.#open, "href", address(["event", latest.id]));
    this.#settings.update(camera, this.store.node?.settings !== false);
    this.tick();
  }
}
