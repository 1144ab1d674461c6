// The preview: the panel itself, with the settings as they stand in the form. Beside it this page does
// what the button's script does on a site: it says hello to the panel, and keeps the visitor's token.
const PAUSE = 400; // ms without a change, before the preview follows
const WORDS = ["greeting", "suggestions"]; // shown before anything was said
const frame = document.querySelector("[data-preview]");
const form = document.getElementById("widget-form");
const looks = document.getElementById("looks");
const saved = document.querySelector("[data-saved]");
const origin = location.origin;
let visitor = null; // kept as long as this page: a preview leaves nothing behind
let lang = ""; // chosen in the panel
let before = {};
let shown;
let timer;

function settings() {
  const fields = new URLSearchParams(new FormData(form));
  fields.delete("csrf_token");
  return fields;
}

/** Show the panel with the settings, where they are others than before. */
function show() {
  const fields = settings();
  const now = Object.fromEntries(fields);
  if (WORDS.some((name) => now[name] !== before[name])) visitor = null; // a conversation hides them
  if (now.language !== before.language) lang = "";
  before = now;
  fields.set("scheme", looks.elements.scheme.value);
  fields.set("lang", lang);
  const address = `${frame.dataset.preview}?${fields}`;
  if (address !== shown) frame.contentWindow.location.replace(address); // no step in the history
  shown = address;
}

function changed() {
  saved.textContent = String(settings()) === stored ? "as it is saved" : "not saved yet";
  clearTimeout(timer);
  timer = setTimeout(show, PAUSE);
}

function heard({ source, origin: from, data }) {
  if (source !== frame.contentWindow || from !== origin) return;
  if (data?.t !== "tt" || data.v !== 1) return;
  if (data.type === "visitor") visitor = data.token;
  if (data.type !== "ready") return;
  const own = new URLSearchParams(source.location.search);
  if (!own.has("scheme")) {
    // the panel has loaded itself anew, as after a choice of its language
    lang = own.get("lang") ?? "";
    shown = undefined;
    return show();
  }
  // not open: an open panel takes the focus
  source.postMessage({ t: "tt", v: 1, type: "hello", visitor, identity: null, open: false }, origin);
}

let stored;
if (frame) {
  stored = document.querySelector("[data-focus]") ? "" : String(settings());
  if (matchMedia("(prefers-color-scheme: dark)").matches) looks.elements.scheme.value = "dark";
  looks.hidden = false;
  addEventListener("message", heard);
  form.addEventListener("input", changed);
  looks.addEventListener("change", () => {
    frame.parentElement.classList.toggle("phone", looks.elements.size.value === "phone");
    show();
  });
  changed();
  show(); // only now is there somebody to hear it
}
