// The panel inside the frame: starts when the page around it says hello.
import { fill, get, icon, lang, link, make, quiet, say, texts } from "./dom.js";
import { begin, call, emit, identify, listen, toHost, token } from "./peers.js";
import * as talk from "./talk.js";

const field = get("field");
const menu = get("menu");
const more = get("more");
const email = get("email");
const { greeting } = document.body.dataset;
const suggestions = JSON.parse(document.body.dataset.suggestions);
let open = false;
let unread = 0;
let greeted = false;
let sound;
let sending;
let settle;
const begun = new Promise((resolve) => (settle = resolve));

/** A new document has a new nonce; what was written goes along in the fragment. */
function restart(to = lang) {
  const kept = JSON.stringify({ draft: field.value, old: talk.spoken() });
  location.replace(`?v=1&lang=${to}&at=${Date.now()}#${encodeURIComponent(kept)}`);
}

/** The document does not come without a connection: then this one stays. */
const reload = () => navigator.onLine && restart();

async function hello({ visitor, identity, theme, open: shown }) {
  document.documentElement.style.cssText = theme?.match(/--tt-[\w-]+:[^;]+/g)?.join(";") ?? "";
  const kept = location.hash && JSON.parse(decodeURIComponent(location.hash.slice(1)));
  field.value ||= kept.draft ?? "";
  const [known, queued] = visitor?.split("\n") ?? [];
  if (queued) talk.restore(JSON.parse(queued));
  talk.compose();
  setOpen(shown);
  try {
    const answer = await begin(known, identity);
    greeted = Boolean(answer.conversation);
    if (answer.started_anew) talk.startAnew(kept.old);
    else if (!greeted) talk.greet(greeting, suggestions);
    talk.show(answer.conversation);
    talk.sendQueued();
  } catch (error) {
    talk.greet(greeting, suggestions);
    talk.warn(error.status ? texts.failed : texts.offline, link(texts.retry, reload));
    addEventListener("online", reload);
  }
  document.body.removeAttribute("aria-busy");
  settle();
  if (open) welcome();
}

function welcome() {
  if (!greeted && greeting) say(greeting);
  greeted = true;
}

function setOpen(is) {
  open = is;
  quiet(!is);
  if (!is) return;
  tellUnread(0);
  (asksPerson() ? get("email") : field).focus();
  if (!document.body.ariaBusy) welcome();
}

function tellUnread(n) {
  if (n !== unread) emit("unread", { count: n });
  unread = n;
  toHost("unread", { count: n || "", text: n ? ", " + fill(texts.unread, { n }) : "" });
}

function answered() {
  if (open && !document.hidden) return;
  if (!open) tellUnread(unread + 1);
  if (get("sound").ariaChecked === "true") chime();
}

function chime() {
  sound ??= new AudioContext();
  const tone = sound.createOscillator();
  const volume = sound.createGain();
  volume.gain.setValueAtTime(0.06, sound.currentTime);
  volume.gain.exponentialRampToValueAtTime(0.0001, sound.currentTime + 0.4);
  tone.frequency.value = 660;
  tone.connect(volume).connect(sound.destination);
  tone.start();
  tone.stop(sound.currentTime + 0.4);
}

function showMenu(is) {
  menu.hidden = !is;
  more.ariaExpanded = String(is);
}

async function transcript() {
  showMenu(false);
  more.focus();
  try {
    const file = await (await call("/transcript")).blob();
    const a = document.createElement("a");
    Object.assign(a, { href: URL.createObjectURL(file), download: "conversation.txt" });
    a.click();
    setTimeout(() => URL.revokeObjectURL(a.href), 10_000);
  } catch {
    talk.warn(texts.failed);
  }
}

// ---------------------------------------------------------- to a person

function wrong(text) {
  get("email-error").replaceChildren(...(text ? [icon("bang"), text] : []));
  email.ariaInvalid = String(Boolean(text));
  if (text) email.focus();
}

function alert(text) {
  get("handoff-alert").replaceChildren(...(text ? [make("div", { class: "note bad" }, icon("bang"), text)] : []));
}

/** Show the form, with `why` above it where the assistant cannot answer, and what would be passed on. */
async function askPerson(why) {
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

function backToTalk() {
  get("person").hidden = true;
  get("talk").hidden = false;
  get("to-person").focus();
}

const asksPerson = () => !get("person").hidden;

get("to-person").addEventListener("click", () => askPerson());
get("back").addEventListener("click", backToTalk);
email.addEventListener("input", () => wrong(""));
get("handoff").addEventListener("submit", async (event) => {
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
    backToTalk();
    field.focus();
    say(talk.handedOver(handoff));
  } catch (error) {
    if (error.param === "email") wrong(texts.email_wrong);
    else alert(error.status ? texts.handoff_failed : texts.offline);
  } finally {
    sending = false;
  }
});

// ------------------------------------------------------------ the panel

talk.start({ begun, person: askPerson, restart, answered });
more.addEventListener("click", () => showMenu(menu.hidden));
get("transcript").addEventListener("click", transcript);
get("sound").addEventListener("click", ({ currentTarget: item }) => {
  item.ariaChecked = String(item.ariaChecked !== "true");
  if (item.ariaChecked === "true") chime();
});
get("language").addEventListener("change", ({ target }) => {
  if (navigator.onLine) return restart(target.value);
  target.value = lang;
  talk.warn(texts.offline);
});
document.querySelectorAll(".shut").forEach((one) => one.addEventListener("click", () => toHost("close")));
addEventListener("click", ({ target }) => {
  if (!target.closest("#menu, #more")) showMenu(false);
});
addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing) return;
  if (!menu.hidden) {
    showMenu(false);
    more.focus();
  } else if (asksPerson()) backToTalk();
  else toHost("close");
});
listen({
  hello,
  open: () => setOpen(true),
  close: () => setOpen(false),
  async identify(who) {
    try {
      const answer = await identify(who);
      if (answer.started_anew) talk.startAnew();
      talk.show(answer.conversation);
    } catch (error) {
      emit("error", { code: error.code });
    }
  },
  language: (data) => navigator.onLine && restart(data.lang),
  async signOut() {
    await call("/sign-out", { method: "POST" }).catch(() => undefined); // forgotten here in any case
    toHost("visitor", { token: null });
    field.value = "";
    restart();
  },
});
