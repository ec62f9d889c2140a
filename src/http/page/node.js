// The node: model, queue, broker, outbox and history, and a summary of them for the top of the page.
import { Keyed, foreign, h, icon, setAttribute, setIcon, setText } from "./dom.js";
import { bytes, count } from "./numbers.js";
import { age, fullTime, lengthOf, ageSeconds } from "./time.js";

class Fact {
  #shape = icon("good");
  #value = foreign("");

  constructor(name) {
    this.element = h("div", null, h("dt", null, name), h("dd", null, this.#shape, this.#value));
  }

  /** @param {boolean|null} good null: there is nothing to judge */
  update([value, good]) {
    setText(this.#value, value);
    setAttribute(this.element, "data-bad", good === false);
    this.#shape.classList.toggle("gone", good == null);
    setIcon(this.#shape, good === false ? "alert" : "good");
  }
}

const HISTORY = { on: "kept", off: "not kept", stopped: "stopped" };

/** What is told of a node, in groups. */
function groups(node) {
  const { model, queue, dropped, broker, outbox, history, reload } = node;
  const unsent = `${count(outbox.messages, "message")}, ${bytes(outbox.bytes)}`;
  const lost = dropped.clips + dropped.events > 0;
  const waiting = `${count(queue.clips, "clip")}, the oldest for ${lengthOf(queue.oldest_s)}`;
  const missing = dropped.history_events + dropped.history_frames;
  const unwritten = `${count(dropped.history_events, "event")}, frames of ${dropped.history_frames}`;
  const kept = `${count(history.events, "event")}, ${bytes(history.bytes)}`;
  return [
    [
      "Process",
      [
        ["Name", [node.node]],
        ["Version", [node.version]],
        ["State", [node.why ? `${node.phase}: ${node.why}` : node.phase, node.why ? false : null]],
        ["Running for", [`${lengthOf(ageSeconds(node.started))}, since ${fullTime(node.started)}`]],
        [
          "Last reload",
          reload
            ? [
                reload.error ? `failed ${age(reload.time)}: ${reload.error}` : age(reload.time),
                !reload.error,
              ]
            : ["none"],
        ],
        ["Settings from here", [node.settings ? "allowed" : "refused: mqtt.commands is off"]],
      ],
    ],
    [
      "Model",
      [
        ["Model", [model?.id ?? "not loaded yet"]],
        ["Revision", [model?.revision || "none"]],
        ["Runs on", [model ? [model.device, node.gpu].filter(Boolean).join(", ") : "–"]],
        ["Arithmetic", [model?.dtype ?? "–"]],
        ["Pace", [`${node.clips_per_minute.toFixed(1)} clips a minute`]],
        ["Waiting", [queue.clips ? waiting : "no clip"]],
        ["Dropped", [`${count(dropped.clips, "clip")}, ${count(dropped.events, "event")}`, !lost]],
      ],
    ],
    [
      "Delivery",
      [
        ["Broker", [broker.connected ? "connected" : "not connected", broker.connected]],
        ["Outbox", [outbox.messages ? unsent : "empty"]],
        ["Kept on disk", [outbox.on_disk ? "yes" : "no: what waits is lost with a restart"]],
      ],
    ],
    [
      "History",
      [
        [
          "State",
          [
            [HISTORY[history.state] ?? history.state, history.why].filter(Boolean).join(": "),
            history.state === "off" ? null : history.state === "on",
          ],
        ],
        ["Size", [kept]],
        ["Oldest", [history.oldest ? `${fullTime(history.oldest)}, ${age(history.oldest)}` : "none"]],
        ["Not written", [unwritten, history.state === "off" ? null : missing === 0]],
      ],
    ],
  ];
}

class Group {
  #list = h("dl", { class: "facts" });
  #facts = new Keyed(this.#list, (name) => new Fact(name));

  constructor(name) {
    this.element = h("section", { class: "panel", "aria-label": name }, h("h2", null, name), this.#list);
  }

  update(facts) {
    this.#facts.update(facts);
  }
}

export class NodeView {
  title = "Node";
  #name = foreign("");
  #groups = h("div", { class: "groups" });
  #keyed = new Keyed(this.#groups, (name) => new Group(name));

  constructor({ store }) {
    this.store = store;
    this.element = h(
      "div",
      { class: "node" },
      h("div", { class: "page-head" }, h("h1", { tabindex: "-1" }, "Node ", this.#name)),
      this.#groups,
    );
  }

  update(change) {
    const { node } = this.store;
    if (!node || (change && !change.node)) return;
    setText(this.#name, node.node);
    this.#keyed.update(groups(node));
  }
}

/** The node in a few words for the top of the page. */
export class Pulse {
  #name = foreign("");
  #words = h("span");
  #trouble = h("span", { class: "trouble" });

  constructor(element) {
    element.append(this.#name, this.#words, this.#trouble);
  }

  update(node) {
    const waiting = node.queue.clips ? `, ${node.queue.clips} waiting` : "";
    setText(this.#name, node.node);
    const pace = `${node.clips_per_minute.toFixed(0)} clips/min${waiting}`;
    setText(this.#words, ` ${node.why ? node.phase : pace}`);
    const trouble = [
      !node.broker.connected && "broker not connected",
      node.history.state === "stopped" && "history stopped",
      node.reload?.error && "reload failed",
    ]
      .filter(Boolean)
      .join(", ");
    setText(this.#trouble, trouble);
  }
}
