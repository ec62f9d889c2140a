// Tells screen readers what happens, politely, once, and in one sentence where much happens together.

const GATHER_MS = 1500;
const MOST_SINGLE = 3;
let waiting = [];

/** Says a sentence soon, together with what else is said meanwhile. */
export function announce(sentence) {
  if (waiting.length === 0) setTimeout(say, GATHER_MS);
  waiting.push(sentence);
}

function say() {
  const shown = waiting.slice(0, MOST_SINGLE);
  const more = waiting.length - shown.length;
  if (more > 0) shown.push(`And ${more} more.`);
  waiting = [];
  document.getElementById("announcer").textContent = shown.join(" ");
}
