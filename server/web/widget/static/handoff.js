// "Talk to a person": what is passed on is shown before it is sent.
import { fill, get, icon, make, say, texts } from "./dom.js";
import { emit, toHost } from "./host.js";
import { call, token } from "./server.js";
import { handedOver } from "./talk.js";

const form = get("handoff");
const email = get("email");
let sending;

function wrong(text) {
  get("email-error").replaceChildren(...(text ? [icon("bang"), text] : []));
  email.ariaInvalid = String(Boolean(text));
  if (text) email.focus();
}

function alert(text) {
  get("handoff-alert").replaceChildren(...(text ? [make("div", { class: "note bad" }, icon("bang"), text)] : []));
}

/** Show the form, with `why` above it where the assistant cannot answer, and what would be passed on. */
export async function open(why) {
  get("talk").hidden = true;
  get("person").hidden = false;
  alert(why);
  email.focus();
  try {
    const { topic, tried, messages: n, expected, hours } = await (await call("/handoff/preview")).json();
    get("expected").textContent = [expected, hours].filter(Boolean).join(", ");
    const rows = [[texts.topic, topic], [texts.tried, tried], [texts.with_it, n && fill(texts.messages, { n })]];
    const pairs = rows.filter(([, value]) => value).flatMap(([name, value]) => [make("dt", {}, name), make("dd", { dir: "auto" }, value)]);
    get("passed-on").replaceChildren(...pairs);
    get("summary").hidden = !pairs.length;
  } catch {
    get("summary").hidden = true; // the form can be sent without it
  }
}

export function close() {
  get("person").hidden = true;
  get("talk").hidden = false;
  get("to-person").focus();
}

export const isOpen = () => !get("person").hidden;

export function start() {
  get("to-person").addEventListener("click", () => open());
  get("back").addEventListener("click", close);
  email.addEventListener("input", () => wrong(""));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const address = email.value.trim();
    if (!address) return wrong(texts.email_missing);
    if (!/^[^\s@]+@[^\s@]+$/.test(address)) return wrong(texts.email_wrong);
    if (!/\.[^\s@.]{2,}$/.test(address)) return wrong(texts.email_ending);
    wrong("");
    alert("");
    if (sending) return;
    sending = true;
    try {
      const response = await call("/handoff", { body: { email: address, note: get("note").value.trim(), copy: get("copy-me").checked } });
      const handoff = await response.json();
      toHost("visitor", { token: token() });
      emit("handoff", { number: handoff.number });
      get("note").value = "";
      close();
      get("field").focus();
      say(handedOver(handoff));
    } catch (error) {
      if (error.param === "email") wrong(texts.email_wrong);
      else alert(error.status ? texts.handoff_failed : texts.offline);
    } finally {
      sending = false;
    }
  });
}
