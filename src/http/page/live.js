// Keeps the stream of live messages open: it notices when it breaks or falls silent, and opens it again.
import { ApiError, getNode } from "./api.js";

const KINDS = ["event", "camera", "gone", "node", "reset"];
const FIRST_PAUSE_MS = 200;
const LONGEST_PAUSE_MS = 30000;
/** The daemon tells of its node every few seconds: a longer silence is a connection that is no more. */
const SILENCE_MS = 45000;

export class Live {
  #source = null;
  #timer = 0;
  #watch = 0;
  #pause = FIRST_PAUSE_MS;

  /**
   * @param {(kind: string, data: any) => void} onMessage
   * @param {() => void} onOpen each time that the stream is open
   * @param {() => void} onLost each time that it breaks
   */
  constructor({ onMessage, onOpen, onLost }) {
    Object.assign(this, { onMessage, onOpen, onLost });
  }

  start() {
    this.stop();
    const source = new EventSource("api/live");
    this.#source = source;
    source.onopen = () => {
      this.#pause = FIRST_PAUSE_MS;
      this.#heard();
      this.onOpen();
    };
    source.onerror = () => {
      this.onLost();
      if (source.readyState === EventSource.CLOSED) this.#startLater();
    };
    for (const kind of KINDS) {
      source.addEventListener(kind, (message) => {
        this.#heard();
        this.onMessage(kind, JSON.parse(message.data));
      });
    }
    this.#heard();
  }

  stop() {
    this.#source?.close();
    this.#source = null;
    clearTimeout(this.#timer);
    clearTimeout(this.#watch);
  }

  #heard() {
    clearTimeout(this.#watch);
    this.#watch = setTimeout(() => {
      this.onLost();
      this.start();
    }, SILENCE_MS);
  }

  #startLater() {
    this.stop();
    const pause = this.#pause * (0.75 + Math.random() / 2);
    this.#pause = Math.min(this.#pause * 2, LONGEST_PAUSE_MS);
    this.#timer = setTimeout(() => this.#tryAgain(), pause);
  }

  /** A stream does not say why it was refused, a request does: after 401 the login form starts us again. */
  async #tryAgain() {
    try {
      await getNode();
    } catch (failure) {
      if (!(failure instanceof ApiError)) throw failure;
      if (failure.status !== 401) this.#startLater();
      return;
    }
    this.start();
  }
}
