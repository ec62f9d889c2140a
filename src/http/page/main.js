// Puts the page together: the store, the live stream, the views by their addresses, the banner and the login.
import { announce } from "./announce.js";
import { getCameras, getNode, logout, onLoginWanted } from "./api.js";
import { CameraView } from "./camera.js";
import { setAttribute, setText } from "./dom.js";
import { EventView } from "./event.js";
import { Live } from "./live.js";
import { loginForm } from "./login.js";
import { NodeView, Pulse } from "./node.js";
import { count } from "./numbers.js";
import { Overview } from "./overview.js";
import { Router } from "./router.js";
import { SearchView } from "./search.js";
import { Store, alertsOn } from "./store.js";
import { everySecond } from "./time.js";

const VIEWS = { camera: CameraView, event: EventView, search: SearchView, node: NodeView };
const LOST = "Connection lost, trying again. What is shown is old.";
const REFRESH_PAUSE_MS = 3000;

const element = (id) => document.getElementById(id);
const main = element("main");
const banner = element("banner");
const pulse = new Pulse(element("pulse"));
const store = new Store();
const live = new Live({ onMessage, onOpen: refresh, onLost });
const router = new Router(main, makeView, onShow);
let loggingIn = false;
let refreshTimer = 0;

function makeView(place) {
  const View = VIEWS[place.name] ?? Overview;
  return new View({ store, router }, place);
}

function onShow(view, name) {
  for (const link of element("nav").children) {
    const current = link.dataset.view === (name || "overview");
    setAttribute(link, "aria-current", current ? "page" : null);
  }
  drawTitle(view);
}

function onMessage(kind, data) {
  if (kind === "reset") refresh();
  else store.take(kind, data);
  if (kind === "event") tellAlerts(data);
}

/** The stream is open, or has missed something: what it has told before may be old. */
async function refresh() {
  clearTimeout(refreshTimer);
  store.beginRefresh();
  try {
    const [{ cameras }, node] = await Promise.all([getCameras(), getNode()]);
    const starting = !store.loaded;
    store.endRefresh(cameras, node);
    store.setLink("up");
    element("logout").hidden = !node.login;
    if (starting) tellFirst();
  } catch (failure) {
    if (failure.status === 401) return;
    onLost();
    refreshTimer = setTimeout(refresh, REFRESH_PAUSE_MS);
  }
}

function onLost() {
  if (!loggingIn) store.setLink("lost");
}

function tellAlerts({ camera, alerts }) {
  const name = store.cameras.get(camera)?.name ?? camera;
  for (const [alert, { on, changed }] of Object.entries(alerts ?? {})) {
    if (changed && on) announce(`${name}: alert ${alert} is on.`);
  }
}

function tellFirst() {
  const number = alerting();
  if (number) announce(`${count(number, "camera")} with an alert on.`);
}

function alerting() {
  return [...store.cameras.values()].filter((camera) => alertsOn(camera).length > 0).length;
}

function drawTitle(view) {
  const number = alerting();
  const title = `${number ? `(${number}) ` : ""}${view.title} – camscribe`;
  if (document.title !== title) document.title = title;
}

function drawBanner() {
  const lost = store.link === "lost";
  if (lost) announce(LOST);
  else if (!banner.hidden && store.link === "up") announce("The connection is back.");
  banner.hidden = !lost;
  setText(banner, lost ? LOST : "");
}

store.subscribe((change) => {
  if (change.link) drawBanner();
  if (change.node) pulse.update(store.node);
  if (loggingIn) return;
  router.view?.update(change);
  if (router.view) drawTitle(router.view);
});

onLoginWanted(() => {
  if (loggingIn) return;
  loggingIn = true;
  live.stop();
  store.setLink("starting");
  clearTimeout(refreshTimer);
  document.body.toggleAttribute("data-login", true);
  element("logout").hidden = true;
  const form = loginForm(() => {
    loggingIn = false;
    document.body.toggleAttribute("data-login", false);
    router.cover(null);
    live.start();
  });
  router.cover(form);
  form.querySelector("input").focus();
});

element("logout").addEventListener("click", async () => {
  await logout().catch(() => {});
  location.reload();
});
element("skip").addEventListener("click", () => (main.querySelector("h1") ?? main).focus());

addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select");
  if (typing || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (router.view?.key?.(event)) event.preventDefault();
});

everySecond(() => router.view?.tick?.());
router.start();
live.start();
