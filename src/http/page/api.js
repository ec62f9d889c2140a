// Asks the daemon over HTTP. What fails is an `ApiError` with words for people.
import { learnTime } from "./time.js";

export class ApiError extends Error {
  /** @param {number} status 0: the daemon was not reached */
  constructor(status, message, code) {
    super(message);
    this.status = status;
    this.code = code;
  }

  /** The message as a sentence of its own. */
  get sentence() {
    const { message } = this;
    return `${message[0]?.toUpperCase() ?? ""}${message.slice(1)}${/[.!?]$/.test(message) ? "" : "."}`;
  }
}

const path = encodeURIComponent;
let refused = () => {};

/** Names who is told when the daemon wants a login. */
export function onLoginWanted(listener) {
  refused = listener;
}

async function request(address, options) {
  let response;
  try {
    response = await fetch(address, { cache: "no-store", ...options });
  } catch (failure) {
    if (failure.name === "AbortError") throw failure;
    throw new ApiError(0, "The daemon cannot be reached.");
  }
  learnTime(response.headers.get("Date"));
  const body = await response.json().catch(() => null);
  if (response.ok) return body;
  if (response.status === 401 && address !== "api/login") refused();
  const error = body?.error;
  const message = error?.message ?? `The daemon answered ${response.status}.`;
  throw new ApiError(response.status, message, error?.code);
}

function send(method, address, body, signal) {
  const headers = { "Content-Type": "application/json" };
  return request(address, { method, headers, body: JSON.stringify(body), signal });
}

export const getNode = () => request("api/node");
export const getCameras = () => request("api/cameras");
export const getEvent = (id, signal) => request(`api/events/${path(id)}`, { signal });
export const changeCamera = (id, change) => send("PATCH", `api/cameras/${path(id)}`, change);
export const ask = (id, question, signal) => send("POST", `api/cameras/${path(id)}/ask`, question, signal);
export const login = (token) => send("POST", "api/login", { token });
export const logout = () => send("POST", "api/logout", {});

/** @param {Object<string, string|number|null>} query what is empty is left out */
export function getEvents(query, signal) {
  const filled = Object.entries(query).filter(([, value]) => value != null && value !== "");
  return request(`api/events?${new URLSearchParams(filled)}`, { signal });
}

export function snapshotAddress(camera, id) {
  return `api/cameras/${path(camera)}/snapshot.jpg?id=${path(id)}`;
}

export function frameAddress(id, number) {
  return `api/events/${path(id)}/frames/${number}.jpg`;
}
