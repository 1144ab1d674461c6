// The panel inside the frame: starts when the page around it says hello.
import { fill, get, lang, link, quiet, say, texts } from "./dom.js";
import * as handoff from "./handoff.js";
import { emit, listen, toHost } from "./host.js";
import { begin, call, identify } from "./server.js";
import * as talk from "./talk.js";

const field = get("field");
const menu = get("menu");
const more = get("more");
const { greeting } = document.body.dataset;
const suggestions = JSON.parse(document.body.dataset.suggestions);
let open = false;
let unread = 0;
let greeted = false;
let sound;

/** A new document brings a new nonce. What was written goes along in the fragment, which no server sees. */
function restart(to = lang) {
  const kept = JSON.stringify({ draft: field.value, old: talk.spoken() });
  location.replace(`?v=1&lang=${to}&at=${Date.now()}#${encodeURIComponent(kept)}`);
}

async function hello({ visitor, identity, theme, open: shown }) {
  document.documentElement.style.cssText = theme?.match(/--tt-[\w-]+:[^;]+/g)?.join(";") ?? "";
  const kept = location.hash && JSON.parse(decodeURIComponent(location.hash.slice(1)));
  field.value ||= kept.draft ?? "";
  talk.compose();
  setOpen(shown);
  try {
    const answer = await begin(visitor, identity);
    greeted = Boolean(answer.conversation);
    if (answer.started_anew) talk.startAnew(kept.old);
    else if (!greeted) talk.greet(greeting, suggestions);
    talk.show(answer.conversation);
  } catch (error) {
    talk.greet(greeting, suggestions);
    talk.warn(error.status ? texts.failed : texts.offline, link(texts.retry, () => restart()));
  }
  document.body.removeAttribute("aria-busy");
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
  (handoff.isOpen() ? get("email") : field).focus();
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

talk.start({ person: handoff.open, restart, answered });
handoff.start();
more.addEventListener("click", () => showMenu(menu.hidden));
get("transcript").addEventListener("click", transcript);
get("sound").addEventListener("click", ({ currentTarget: item }) => {
  item.ariaChecked = String(item.ariaChecked !== "true");
  if (item.ariaChecked === "true") chime();
});
get("language").addEventListener("change", ({ target }) => restart(target.value));
document.querySelectorAll(".shut").forEach((one) => one.addEventListener("click", () => toHost("close")));
addEventListener("click", ({ target }) => {
  if (!target.closest("#menu, #more")) showMenu(false);
});
addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing) return;
  if (!menu.hidden) {
    showMenu(false);
    more.focus();
  } else if (handoff.isOpen()) handoff.close();
  else toHost("close");
});
listen({
  hello,
  open: () => setOpen(true),
  close: () => setOpen(false),
  async identify(who) {
    const answer = await identify(who);
    if (answer.started_anew) talk.startAnew();
    talk.show(answer.conversation);
  },
  language: (data) => restart(data.lang),
  async signOut() {
    await call("/sign-out", { method: "POST" }).catch(() => undefined); // forgotten here in any case
    toHost("visitor", { token: null });
    field.value = "";
    restart();
  },
});
