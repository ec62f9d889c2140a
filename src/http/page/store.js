// What the page knows: cameras, node and the state of the connection. It tells of changes once a frame.

/** More changes than this wait for no frame: the page was in the background, and lists are fetched again. */
const MOST_EVENTS = 500;
/** In a tab in the background no frames are drawn; changes are told all the same. */
const BACKGROUND_MS = 1000;

/**
 * @typedef {Object} Change
 * @property {Set<string>} cameras those that changed
 * @property {boolean} list whether cameras came or went
 * @property {boolean} node
 * @property {boolean} link whether the connection was lost or is back
 * @property {boolean} gap whether the events of this change and later ones may not follow those before it
 * @property {boolean} missed whether events may have been missed: lists are to be fetched again
 * @property {Object[]} events the live events, oldest first
 */

export class Store {
  /** @type {Map<string, Object>} */
  cameras = new Map();
  node = null;
  /** "starting", "up" or "lost" */
  link = "starting";
  /** Whether the cameras were fetched at least once. */
  loaded = false;
  #listeners = new Set();
  #change = noChange();
  #timer = 0;
  #told = true;
  /** While the cameras are fetched: what the stream has told of meanwhile, which is newer. */
  #newer = null;

  /** @param {(change: Change) => void} listener */
  subscribe(listener) {
    this.#listeners.add(listener);
  }

  setLink(link) {
    if (link === this.link) return;
    this.link = link;
    this.#change.link = true;
    this.#tellSoon();
  }

  /** Takes a message of the stream. */
  take(kind, data) {
    if (kind === "event") this.#takeEvent(data);
    else if (kind === "camera") this.#takeCamera(data);
    else if (kind === "gone") this.#forget(data.camera);
    else if (kind === "node") this.#takeNode(data);
  }

  /** Before the cameras are fetched. */
  beginRefresh() {
    this.#newer = { events: new Set(), cameras: new Set() };
    this.#change.gap = true;
    this.#tellSoon();
  }

  /** Takes fetched cameras and node, except for what the stream has told of since `beginRefresh`. */
  endRefresh(cameras, node) {
    const { events, cameras: told } = this.#newer ?? { events: new Set(), cameras: new Set() };
    this.#newer = null;
    const here = new Set(cameras.map(({ id }) => id));
    for (const id of [...this.cameras.keys()]) if (!here.has(id) && !told.has(id)) this.#forget(id);
    for (const camera of cameras) {
      if (told.has(camera.id)) continue;
      const newest = events.has(camera.id) ? this.cameras.get(camera.id) : camera;
      const { latest, seen, snapshot, alert_states } = newest;
      this.#put({ ...camera, latest, seen, snapshot, alert_states });
    }
    this.loaded = true;
    this.#change.missed = true;
    this.#takeNode(node);
  }

  #takeEvent(event) {
    if (this.#change.events.length < MOST_EVENTS) this.#change.events.push(event);
    else this.#change.gap = this.#change.missed = true;
    const camera = this.cameras.get(event.camera);
    if (!camera) return;
    this.#newer?.events.add(event.camera);
    const isNew = event.type !== "unchanged";
    this.#put({
      ...camera,
      seen: event.clip.end,
      latest: isNew ? event : camera.latest,
      snapshot: isNew ? event.id : camera.snapshot,
      alert_states: { ...camera.alert_states, ...event.alerts },
    });
  }

  #takeCamera(camera) {
    this.#newer?.cameras.add(camera.id);
    this.#put(camera);
  }

  #put(camera) {
    if (!this.cameras.has(camera.id)) this.#change.list = true;
    this.cameras.set(camera.id, camera);
    this.#change.cameras.add(camera.id);
    this.#tellSoon();
  }

  #forget(id) {
    if (!this.cameras.delete(id)) return;
    this.#change.list = true;
    this.#tellSoon();
  }

  #takeNode(node) {
    this.node = node;
    this.#change.node = true;
    this.#tellSoon();
  }

  #tellSoon() {
    if (!this.#told) return;
    this.#told = false;
    const tell = () => this.#tell();
    this.#timer = setTimeout(tell, BACKGROUND_MS);
    requestAnimationFrame(tell);
  }

  #tell() {
    if (this.#told) return;
    this.#told = true;
    clearTimeout(this.#timer);
    const change = this.#change;
    this.#change = noChange();
    for (const listener of this.#listeners) listener(change);
  }
}

/** @returns {Change} */
function noChange() {
  return {
    cameras: new Set(),
    list: false,
    node: false,
    link: false,
    gap: false,
    missed: false,
    events: [],
  };
}

/** The names of a camera's alerts that are on. */
export function alertsOn(camera) {
  return camera.alerts.filter((name) => camera.alert_states[name]?.on);
}
