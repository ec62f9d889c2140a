// Shows answers with their probabilities as bars, and the alerts that follow from them.
import { Keyed, foreign, h, icon, setAttribute, setIcon, setText } from "./dom.js";
import { percent } from "./numbers.js";
import { dayAndClock } from "./time.js";

/** Below this confidence the model wanted to say something else. */
const UNSURE = 0.5;

/** Every answer that was possible, with its probability: those of a choice, or yes and no. */
function options(answer) {
  if (answer.type === "choice") return answer.probabilities;
  const { probability } = answer;
  return [
    { value: "yes", probability },
    { value: "no", probability: 1 - probability },
  ];
}

/** A probability as a bar; the number stands beside it. */
class Bar {
  #fill = h("span");
  element = h("span", { class: "bar", "aria-hidden": "true" }, this.#fill);

  update(probability) {
    this.#fill.style.transform = `scaleX(${probability})`;
  }
}

/** One line: a text, a probability and its bar. `strong` is the answer. */
class Line {
  #value = foreign("", { class: "value" });
  #number = h("span", { class: "number" });
  #bar = new Bar();
  element = h("li", { class: "line" }, this.#value, this.#number, this.#bar.element);

  update({ value, probability, strong }) {
    setText(this.#value, String(value));
    setText(this.#number, percent(probability));
    setAttribute(this.element, "data-strong", strong);
    this.#bar.update(probability);
  }
}

/** Every possible answer to one question. */
export class AllAnswers {
  #lines = h("ul", { class: "lines" });
  #note = h("p", { class: "note" });
  #keyed = new Keyed(this.#lines, () => new Line());

  /** @param {string} [name] of the question */
  constructor(name) {
    const title = name && foreign(name, { class: "name" });
    this.element = h("li", { class: "all-answers" }, title, this.#lines, this.#note);
  }

  update(answer) {
    const given = answer.answer ?? answer.choice;
    const lines = options(answer).map((it) => ({ ...it, strong: it.value === given }));
    this.#keyed.update(lines.map((line) => [String(line.value), line]));
    const unsure = answer.confidence < UNSURE ? "; the model wanted to say something else" : "";
    const calibrated = answer.calibrated ? "calibrated" : "not calibrated";
    setText(this.#note, `Confidence ${percent(answer.confidence)}${unsure}; ${calibrated}`);
  }
}

/** The answer to one question in one line. */
class ShortAnswer {
  #value = foreign("", { class: "value" });
  #number = h("span", { class: "number" });
  #bar = new Bar();

  constructor(name) {
    const title = foreign(name, { class: "name" });
    this.element = h("li", { class: "answer" }, title, this.#value, this.#number, this.#bar.element);
  }

  update(answer) {
    const given = answer.answer ?? answer.choice;
    const probability = options(answer).find(({ value }) => value === given)?.probability ?? 0;
    setText(this.#value, String(given));
    setText(this.#number, `${percent(probability)}${answer.confidence < UNSURE ? " unsure" : ""}`);
    setAttribute(this.element, "data-no", answer.answer === "no");
    this.#bar.update(probability);
  }
}

/** The answers of an event, one line or all probabilities each. */
export class Answers {
  element = h("ul", { class: "answers", "aria-label": "Answers" });

  constructor({ all = false } = {}) {
    const make = all ? (name) => new AllAnswers(name) : (name) => new ShortAnswer(name);
    this.keyed = new Keyed(this.element, make);
  }

  update(answers) {
    const entries = Object.entries(answers ?? {});
    this.element.hidden = entries.length === 0;
    this.keyed.update(entries);
  }
}

class Alert {
  #shape = icon("off");
  #state = h("span");

  constructor(name) {
    this.element = h("li", { class: "alert" }, this.#shape, foreign(name, { class: "name" }), this.#state);
  }

  update({ on, since, changed, told }) {
    setAttribute(this.element, "data-on", on);
    setIcon(this.#shape, on ? "alert" : "off");
    const verb = told === "switch" && changed ? "switched " : "";
    const start = told === "since" && since ? ` since ${dayAndClock(since)}` : "";
    setText(this.#state, `${verb}${on ? "on" : "off"}${start}`);
  }
}

/** A list of alerts. */
export class Alerts {
  element = h("ul", { class: "alerts", "aria-label": "Alerts" });
  #keyed = new Keyed(this.element, (name) => new Alert(name));

  /** @param {"since"|"switch"|"state"} told beside the state: since when, whether it was switched, nothing */
  constructor(told = "state") {
    this.told = told;
  }

  /** @param {[string, Object][]} entries name and state */
  update(entries) {
    this.element.hidden = entries.length === 0;
    this.#keyed.update(entries.map(([name, state]) => [name, { ...state, told: this.told }]));
  }
}
