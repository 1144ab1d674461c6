// Elements and words. Everything is made with createElement and text, never from HTML.

export const texts = JSON.parse(document.getElementById("texts").textContent);
export const lang = document.documentElement.lang;

export const get = (id) => document.getElementById(id);

/** An element; empty attributes are left out, "on..." are listeners. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === 0 || value) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** An icon of the page's sprite, hidden from assistive technology. */
export function icon(name) {
  const of = (tag) => document.createElementNS("http://www.w3.org/2000/svg", tag);
  const svg = of("svg");
  const use = of("use");
  use.setAttribute("href", "#" + name);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

export const button = (name, label, onclick, more) =>
  make("button", { type: "button", class: "icon s", "aria-label": label, title: label, onclick, ...more }, icon(name));

export const link = (label, onclick) => make("button", { type: "button", class: "link", onclick }, label);

/** A text with its {places} filled in; one with plural forms takes the form for `n`. */
export function fill(text, values) {
  const form = typeof text === "string" ? text : (text[new Intl.PluralRules(lang).select(values.n)] ?? text.other);
  return form.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

export const clock = (date) => date.toLocaleTimeString(lang, { timeStyle: "short" });

let closed = true;
let saying;

/** Nothing is said while the panel is closed. */
export const quiet = (is) => (closed = is);

/** Have it read aloud once; a moment after the region was emptied, else some readers stay silent. */
export function say(text) {
  const region = get("status");
  region.textContent = "";
  clearTimeout(saying);
  if (closed) return;
  saying = setTimeout(() => {
    region.textContent = text;
    saying = setTimeout(() => (region.textContent = ""), 8000);
  }, 100);
}
