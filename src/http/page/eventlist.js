// A list of stored events with their frames: pages on demand, and live ones on top where that is asked for.
import { frameAddress, getEvents } from "./api.js";
import { Alerts, Answers } from "./answers.js";
import { foreign, h, setText } from "./dom.js";
import { PatientImage } from "./picture.js";
import { address } from "./router.js";
import { clock, day, dayAndClock, offset, timeElement, toField } from "./time.js";
import { Words, snippet } from "./words.js";

const PAGE = 30;
/** Live events push the oldest ones out beyond so many; they come again with "Show more". */
const MOST_LIVE = 300;

/** The frames of an event as small pictures, each of which opens the event at its place. */
function strip(event, frames, most) {
  const shown = Math.min(frames, most);
  const pictures = event.clip.frames.slice(0, shown).map(({ offset_s }, n) => {
    const shot = new PatientImage({ loading: "lazy" });
    shot.load(frameAddress(event.id, n));
    const href = address(["event", event.id], { frame: n || null });
    const label = `Frame ${n + 1}, ${offset(offset_s)}`;
    const link = h(
      "a",
      { href, tabindex: "-1", "aria-label": label },
      shot.element,
      h("span", null, offset(offset_s)),
    );
    return h("li", null, link);
  });
  return h("ul", { class: "strip", "aria-label": "Frames" }, ...pictures);
}

/** The place of an event in the order of time, as a text to compare: the daemon writes all times alike. */
function placeOf({ clip, id }) {
  return `${clip.end} ${id}`;
}

/** One event. `camera`: its name, where the list is about several. */
function row({ event, frames, snippet: parts }, { camera, most }) {
  const tell = camera == null ? clock : dayAndClock;
  const time = h(
    "a",
    { class: "event-time", href: address(["event", event.id]) },
    timeElement(event.clip.start, tell),
  );
  const link = camera == null ? null : h("a", { href: address(["camera", event.camera]) }, foreign(camera));
  const alerts = new Alerts("switch");
  alerts.update(Object.entries(event.alerts ?? {}).filter(([, { changed }]) => changed));
  const answers = new Answers();
  answers.update(event.answers);
  const gap = event.clip.gap ? h("span", { class: "note" }, "frames are missing") : null;
  const words = parts ? snippet(parts) : new Words(event.description).element;
  return h(
    "li",
    { class: "event" },
    h("div", { class: "event-head" }, time, link, alerts.element, gap),
    event.description ? words : null,
    answers.element,
    frames ? strip(event, frames, most) : null,
  );
}

export class EventList {
  /** By id: what `getEvents` returned, or the same of a live event. */
  #rows = new Map();
  #days = h("div", { class: "days" });
  #status = h("p", { class: "sentence", role: "status" });
  #more = h(
    "button",
    { type: "button", class: "wide", hidden: true, onclick: () => this.#loadMore() },
    "Show more",
  );
  element = h("div", { class: "event-list" }, this.#days, this.#status, this.#more);
  #query = null;
  #cursor = null;
  #abort = new AbortController();
  #busy = false;
  #again = false;
  #failed = false;
  /** The place of the newest event before a gap that no page has filled yet; null: there is none. */
  #beforeGap = null;

  /**
   * @param {(id: string) => string|null} [nameOf] the name of a camera, where the list is about several
   * @param {boolean} byDay whether it is in the order of time, and grouped by day
   * @param {number} most the most frames of an event
   */
  constructor({ nameOf = () => null, byDay, most = 16 }) {
    Object.assign(this, { nameOf, byDay, most });
    this.near = new IntersectionObserver(([{ isIntersecting }]) => isIntersecting && this.#loadMore(), {
      rootMargin: "300px",
    });
  }

  /** Shows what another query finds. */
  show(query) {
    this.close();
    this.#abort = new AbortController();
    this.#query = query;
    this.#busy = this.#again = false;
    this.#beforeGap = null;
    this.#clear();
    return this.#load({});
  }

  close() {
    this.#abort.abort();
  }

  /** What is added from now on may not follow what is there. */
  markGap() {
    this.#beforeGap ??= this.#days.querySelector(".event")?.dataset.place ?? "";
  }

  /** Fetches the newest page again: something may have been missed. */
  refresh() {
    if (!this.#query) return;
    this.markGap();
    if (this.#busy) this.#again = true;
    else this.#load({ fresh: true });
  }

  /** Shows a live event on top. */
  add(event) {
    if (!this.#query || this.#failed) return;
    // The stream lags behind a page: what is older than the last row comes with the next page.
    if (!this.#more.hidden && placeOf(event) < this.#last().dataset.place) return;
    this.#say("");
    this.#put({ event, frames: event.evidence?.frames ?? 0 });
    // Whoever reads far below keeps what is there.
    if (scrollY < innerHeight) while (this.#rows.size > MOST_LIVE) this.#dropOldest();
  }

  #loadMore() {
    if (this.#busy || this.#more.hidden) return;
    const to = this.#rows.get(this.#last().dataset.id).event.clip.end;
    this.#load(this.#cursor ? { before: this.#cursor } : { to });
  }

  #last() {
    return this.#days.lastElementChild.querySelector("ol").lastElementChild;
  }

  /** Fetches a page. `fresh`: the first one again, for what is there already. */
  async #load({ fresh, ...place }) {
    const { signal } = this.#abort;
    const beforeGap = this.#beforeGap;
    if (fresh) this.#beforeGap = null;
    this.#busy = true;
    if (!this.#rows.size) this.#say("Loading…");
    try {
      const { events, next } = await getEvents({ ...this.#query, ...place, limit: PAGE }, signal);
      if (signal.aborted) return;
      if (fresh) this.#merge(events, next, beforeGap);
      else {
        for (const item of events) this.#put(item);
        this.#setCursor(next);
      }
      this.#failed = false;
      this.#say(this.#rows.size ? "" : "Nothing was found.");
    } catch (failure) {
      if (signal.aborted) return;
      if (fresh) this.#beforeGap = beforeGap;
      this.#failed = !this.#rows.size;
      this.#say(failure.sentence);
    }
    this.#busy = false;
    if (this.#again) {
      this.#again = false;
      this.refresh();
    }
  }

  /** Puts the newest page in its place. If it does not reach over the gap, only what is newer stays. */
  #merge(events, next, beforeGap) {
    if (events.length && !events.some(({ event }) => placeOf(event) <= beforeGap)) {
      const first = placeOf(events[0].event);
      const newer = [...this.#rows.values()].filter(({ event }) => placeOf(event) > first);
      this.#clear();
      this.#setCursor(next);
      for (const item of newer) this.#put(item);
    }
    for (const item of events) this.#put(item);
  }

  #setCursor(cursor) {
    this.#cursor = cursor;
    this.#more.hidden = cursor == null;
    // Observed anew, it is told of again, even if it has not moved.
    this.near.unobserve(this.#more);
    this.near.observe(this.#more);
  }

  #clear() {
    this.#rows.clear();
    this.#days.replaceChildren();
    this.#setCursor(null);
  }

  #say(sentence) {
    this.#status.textContent = sentence;
    this.#status.hidden = !sentence;
  }

  #put(item) {
    const { event } = item;
    if (this.#rows.has(event.id)) return;
    const element = row(item, { camera: this.nameOf(event.camera), most: this.most });
    const place = placeOf(event);
    Object.assign(element.dataset, { id: event.id, place });
    this.#rows.set(event.id, item);
    const list = this.#listOf(event);
    const isOlder = !this.byDay || !list.lastChild || list.lastChild.dataset.place > place;
    const next = isOlder ? null : [...list.children].find((it) => it.dataset.place < place);
    list.insertBefore(element, next);
  }

  /** The list of the day of an event, which is new where the day is. */
  #listOf({ clip }) {
    const date = this.byDay ? toField(clip.end).slice(0, 10) : "";
    const days = [...this.#days.children];
    const known = days.find(({ dataset }) => dataset.date === date);
    if (known) return known.querySelector("ol");
    const list = h("ol", { class: "events" });
    const section = h("section", { "data-date": date }, this.byDay ? h("h3") : null, list);
    this.#days.insertBefore(section, days.find(({ dataset }) => dataset.date < date) ?? null);
    for (const title of this.#days.querySelectorAll("h3")) {
      setText(title, day(`${title.parentElement.dataset.date}T12:00`));
    }
    return list;
  }

  #dropOldest() {
    const last = this.#last();
    this.#rows.delete(last.dataset.id);
    last.remove();
    const section = this.#days.lastElementChild;
    if (!section.querySelector(".event")) section.remove();
    this.#cursor = null;
    this.#more.hidden = false;
  }
}
