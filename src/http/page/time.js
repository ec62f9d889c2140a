// Tells times and ages in words, by the daemon's clock, and keeps the ages on the page current.
import { h, setAttribute, setText } from "./dom.js";

const LOCALE = "en-GB";
const hourCycle = new Intl.DateTimeFormat(undefined, { hour: "numeric" }).resolvedOptions().hourCycle;
const CLOCK = {
  hour: hourCycle === "h23" ? "2-digit" : "numeric",
  minute: "2-digit",
  second: "2-digit",
  hourCycle,
};
const DATE = { day: "numeric", month: "short", year: "numeric" };
const clockFormat = new Intl.DateTimeFormat(LOCALE, CLOCK);
const dayFormat = new Intl.DateTimeFormat(LOCALE, { weekday: "long", day: "numeric", month: "long" });
const oldDayFormat = new Intl.DateTimeFormat(LOCALE, { day: "numeric", month: "long", year: "numeric" });
const shortDayFormat = new Intl.DateTimeFormat(LOCALE, { day: "numeric", month: "short" });
const fullFormat = new Intl.DateTimeFormat(LOCALE, { ...DATE, ...CLOCK, timeZoneName: "short" });

/** Smaller differences of the clocks are the time that an answer takes, and the rounding of its Date. */
const TOLERATED_SKEW_MS = 2500;
const DAY_S = 86400;
let skew = 0;

/** Takes note of the daemon's time, as the header `Date` of an answer tells it. */
export function learnTime(date) {
  const difference = Date.parse(date) - Date.now();
  if (Number.isFinite(difference)) skew = Math.abs(difference) > TOLERATED_SKEW_MS ? difference : 0;
}

/** Milliseconds since 1970 by the daemon's clock. */
export function now() {
  return Date.now() + skew;
}

/** Seconds since a time; 0 if it lies in the future. */
export function ageSeconds(iso) {
  return Math.max(0, (now() - Date.parse(iso)) / 1000);
}

/** A length of time in its largest unit: "12 s", "3 min", "5 h", "2 d". */
export function lengthOf(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 2 * DAY_S) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / DAY_S)} d`;
}

export function age(iso) {
  const seconds = ageSeconds(iso);
  return seconds < 1 ? "now" : `${lengthOf(seconds)} ago`;
}

export function clock(iso) {
  return clockFormat.format(new Date(iso));
}

export function fullTime(iso) {
  return fullFormat.format(new Date(iso));
}

/** The day in words: "Today", "Yesterday", "Monday 30 November", and with its year when it is long ago. */
export function day(iso) {
  const date = new Date(iso);
  const today = new Date(now());
  const passed = Math.round((today.setHours(0, 0, 0, 0) - new Date(iso).setHours(0, 0, 0, 0)) / 864e5);
  if (passed === 0) return "Today";
  if (passed === 1) return "Yesterday";
  return (passed > 300 ? oldDayFormat : dayFormat).format(date);
}

/** Day and time, the day only if it is not today. */
export function dayAndClock(iso) {
  const words = day(iso);
  if (words === "Today") return clock(iso);
  return `${words === "Yesterday" ? words : shortDayFormat.format(new Date(iso))}, ${clock(iso)}`;
}

/** Seconds inside a clip: "0.5 s". */
export function offset(seconds) {
  return `${seconds.toFixed(1)} s`;
}

/** A `<time>` with a text of `tell`. */
export function timeElement(iso, tell) {
  return h("time", { datetime: iso, title: fullTime(iso) }, tell(iso));
}

/** A `<time>` that shows an age and stays current; `setAge` gives it its time. */
export function ageElement() {
  return h("time", { "data-age": true });
}

export function setAge(element, iso) {
  setAttribute(element, "datetime", iso);
  setAttribute(element, "title", iso && fullTime(iso));
  setText(element, iso ? age(iso) : "");
}

/** Calls `tick` every second, after the ages on the page were brought up to date. */
export function everySecond(tick) {
  setInterval(() => {
    for (const element of document.querySelectorAll("time[data-age][datetime]")) {
      setText(element, age(element.dateTime));
    }
    tick();
  }, 1000);
}

/** The value of a `datetime-local` field for a time, and back. */
export function toField(iso) {
  const date = new Date(iso);
  if (Number.isNaN(date.getTime())) return "";
  return new Date(date.getTime() - date.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}

export function fromField(value) {
  return value ? new Date(value).toISOString() : "";
}
