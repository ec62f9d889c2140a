// Tells numbers in words.

/** A probability: "93 %"; what is almost sure is not told as sure. */
export function percent(probability) {
  const rounded = Math.round(probability * 100);
  if (rounded === 100 && probability < 1) return "> 99 %";
  if (rounded === 0 && probability > 0) return "< 1 %";
  return `${rounded} %`;
}

/** "1 camera", "2 cameras". */
export function count(number, noun) {
  return `${number.toLocaleString("en-GB")} ${noun}${number === 1 ? "" : "s"}`;
}

export function bytes(number) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = Math.min(Math.floor(Math.log10(Math.max(number, 1)) / 3), units.length - 1);
  const value = number / 1000 ** power;
  return `${value < 10 && power > 0 ? value.toFixed(1) : Math.round(value)} ${units[power]}`;
}
