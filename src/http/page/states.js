// Tells how a camera is doing: its state in a word with a shape, and whether what is shown of it is old.
import { h, icon, setAttribute, setIcon, setText } from "./dom.js";
import { ageSeconds } from "./time.js";

const STATES = {
  online: "Online",
  connecting: "Connecting",
  offline: "Offline",
  disabled: "Switched off",
};
/** A live camera without a clip for so long, beside three times the length of its clips, is told as old. */
const STALE_S = 45;

/** The state as shape and word. */
export class StateMark {
  #shape = icon("connecting");
  #word = h("span");
  element = h("span", { class: "state" }, this.#shape, this.#word);

  update(state) {
    setAttribute(this.element, "data-state", state);
    setIcon(this.#shape, state in STATES ? state : "offline");
    setText(this.#word, STATES[state] ?? state);
  }
}

/** Why what is shown of a camera is old, in words; null: it is not. */
export function staleness(camera, link) {
  if (!camera.latest) return null;
  if (link === "lost") return "old: connection lost";
  if (camera.state !== "online") return "old: not online";
  const { clip } = camera.latest;
  if (!camera.seen || clip.clock === "file") return null;
  const length = (Date.parse(clip.end) - Date.parse(clip.start)) / 1000;
  return ageSeconds(camera.seen) > STALE_S + 3 * length ? "old: no new clip" : null;
}
