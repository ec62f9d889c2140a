// The box for a question about what a camera shows now, with its answers and refusals.
import { ask } from "./api.js";
import { AllAnswers } from "./answers.js";
import { field, foreign, h } from "./dom.js";
import { clock } from "./time.js";
import { Words } from "./words.js";

/** Refusals whose own message is for programs; all others tell their message. */
const REFUSALS = {
  busy: "Other questions are being answered. Ask again in a moment.",
  expired: "The answer did not come in time: the model is busy. Ask again in a moment.",
  no_such_camera: "This camera is no longer there.",
};
const MOST_ANSWERED = 5;

export class AskBox {
  #question = h("textarea", {
    id: "ask-question",
    rows: "2",
    maxlength: "4000",
    dir: "auto",
    "aria-describedby": "ask-hint",
  });
  #answers = h("input", { id: "ask-answers", autocomplete: "off", placeholder: "yes, no" });
  #last = h("input", { id: "ask-last", type: "number", min: "1", max: "3600", step: "1" });
  #button = h("button", { type: "submit", class: "primary" }, "Ask");
  #stop = h(
    "button",
    { type: "button", class: "plain", hidden: true, onclick: () => this.close() },
    "Stop waiting",
  );
  #status = h("p", { class: "sentence", role: "status" });
  #answered = h("ol", { class: "answered" });
  #abort = new AbortController();

  constructor(camera) {
    this.camera = camera;
    const form = h(
      "form",
      { onsubmit: (event) => this.#submit(event) },
      field("Question", this.#question),
      h("p", { class: "note", id: "ask-hint" }, "Empty: the camera’s own prompt. Ctrl and Enter sends it."),
      h(
        "div",
        { class: "pair" },
        field("Possible answers, with commas", this.#answers),
        field("Last seconds", this.#last),
      ),
      h("div", { class: "actions" }, this.#button, this.#stop),
    );
    this.#question.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
    this.element = h(
      "section",
      { class: "panel", "aria-labelledby": "ask-title" },
      h("h2", { id: "ask-title" }, "Ask about now"),
      form,
      this.#status,
      this.#answered,
    );
  }

  /** Takes a question that waits back. */
  close() {
    this.#abort.abort();
  }

  #read() {
    const question = this.#question.value.trim();
    const answers = this.#answers.value
      .split(",")
      .map((it) => it.trim())
      .filter(Boolean);
    const seconds = this.#last.valueAsNumber;
    return {
      ...(question && { question }),
      ...(answers.length && { answers }),
      ...(seconds > 0 && { last: `${seconds}s` }),
    };
  }

  async #submit(event) {
    event.preventDefault();
    if (this.#button.disabled) return;
    this.#abort = new AbortController();
    this.#wait(true);
    try {
      this.#show(await ask(this.camera, this.#read(), this.#abort.signal));
      this.#status.textContent = "";
    } catch (failure) {
      this.#status.textContent =
        failure.name === "AbortError"
          ? "Taken back."
          : `Not answered. ${REFUSALS[failure.code] ?? failure.sentence}`;
    } finally {
      this.#wait(false);
    }
  }

  #wait(waiting) {
    this.#button.disabled = waiting;
    this.#stop.hidden = !waiting;
    if (waiting) this.#status.textContent = "Asking the model…";
  }

  #show(reply) {
    const item = h("li", null, h("p", { class: "asked" }, foreign(reply.question)));
    if (reply.answer) {
      const answer = new AllAnswers();
      answer.update(reply.answer);
      item.append(h("ul", { class: "answers" }, answer.element));
    } else {
      item.append(new Words(reply.text).element);
    }
    const cut = reply.finish_reason === "length" ? "; cut at the longest answer" : "";
    item.append(
      h(
        "p",
        { class: "note" },
        `${reply.frames} frames, ${clock(reply.start)} to ${clock(reply.end)}; ${reply.total_ms} ms${cut}`,
      ),
    );
    this.#answered.prepend(item);
    while (this.#answered.children.length > MOST_ANSWERED) this.#answered.lastElementChild.remove();
  }
}
