// The form that asks for the token, when the daemon wants one.
import { login } from "./api.js";
import { field, h } from "./dom.js";

/** @param {() => void} onDone called once the daemon has accepted the token */
export function loginForm(onDone) {
  const autocomplete = "current-password";
  const token = h("input", { id: "token", type: "password", autocomplete, required: true });
  const button = h("button", { type: "submit", class: "primary" }, "Log in");
  const status = h("p", { class: "sentence", role: "alert" });
  async function submit(event) {
    event.preventDefault();
    button.disabled = true;
    status.textContent = "";
    try {
      await login(token.value);
      onDone();
    } catch (failure) {
      status.textContent =
        failure.status === 401 ? "The daemon does not know this token." : failure.sentence;
      button.disabled = false;
      token.select();
    }
  }
  return h(
    "form",
    { class: "login panel", onsubmit: submit },
    h("h1", { tabindex: "-1" }, "Log in"),
    h(
      "p",
      null,
      "This camscribe wants its token: what the file ",
      h("code", null, "http.token_file"),
      " holds.",
    ),
    field("Token", token),
    button,
    status,
  );
}
