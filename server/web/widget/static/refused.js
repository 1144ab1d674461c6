// Shows nothing. Tells who writes the page why, on one line, and lets the loader take its button away.
const read = (name) => document.querySelector(`meta[name="tt-${name}"]`).content;
const origin = read("origin");
const page = read("console");
console.warn(
  origin
    ? `Tenantune: ${origin} may not show this chat. Allow it in the console, under Widget: ${page}`
    : `Tenantune: there is no chat with this key, or it is switched off. See the console, under Widget: ${page}`,
);
if (parent !== window) parent.postMessage({ t: "tt", v: 1, type: "refused" }, "*"); // says nothing that is secret
