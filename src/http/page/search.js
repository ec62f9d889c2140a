// The search over all cameras' events. The address holds what is searched for.
import { h } from "./dom.js";
import { EventList } from "./eventlist.js";
import { Filters } from "./filters.js";
import { address } from "./router.js";

export class SearchView {
  title = "Search";
  #place = h("div");

  constructor({ store }, { query }) {
    this.store = store;
    this.query = query;
    this.list = new EventList({
      nameOf: (id) => store.cameras.get(id)?.name ?? id,
      byDay: false,
      most: 4,
    });
    this.hint = h(
      "p",
      { class: "sentence" },
      "Type words that a description may hold, or choose a camera, an alert or a time.",
    );
    this.element = h(
      "div",
      { class: "search" },
      h("div", { class: "page-head" }, h("h1", { tabindex: "-1" }, "Search")),
      this.#place,
      this.hint,
      this.list.element,
    );
  }

  update(change) {
    if (!this.filters && this.store.loaded) this.#start();
    else if (!change) this.filters?.write(this.query);
  }

  close() {
    this.list.close();
  }

  #start() {
    const cameras = [...this.store.cameras.values()];
    const alerts = [...new Set(cameras.flatMap((camera) => camera.alerts))].sort();
    this.filters = new Filters({
      names: ["q", "camera", "alert", "from", "to"],
      choices: {
        camera: cameras.map(({ id, name }) => [id, name]),
        alert: alerts.map((name) => [name, name]),
      },
      action: "Search",
      onSubmit: (query) => this.#go(query),
    });
    this.filters.element.setAttribute("role", "search");
    this.filters.write(this.query);
    this.#place.append(this.filters.element);
    const asked = Object.values(this.query).some(Boolean);
    this.hint.hidden = asked;
    if (asked) this.list.show(this.query);
  }

  #go(query) {
    const target = address(["search"], query);
    if (target === location.hash) this.list.show(this.query);
    else location.hash = target;
  }
}
