// What the panel and the page around it tell each other, version 1. Both check window and origin.
let origin;

export function toHost(type, detail) {
  if (origin) parent.postMessage({ t: "tt", v: 1, type, ...detail }, origin);
}

/** Tell the page that something happened: `Tenantune.on(name)`. */
export const emit = (name, detail) => toHost("event", { name, detail });

/** Call `handlers[type]` for each message of the embedding page; the first one, "hello", settles its origin. */
export function listen(handlers) {
  addEventListener("message", ({ source, origin: from, data }) => {
    if (source !== parent || parent === window || data?.t !== "tt" || data.v !== 1) return;
    if (data.type === "hello") origin ??= from;
    if (from === origin && Object.hasOwn(handlers, data.type)) handlers[data.type](data);
  });
  parent.postMessage({ t: "tt", v: 1, type: "ready" }, "*"); // says nothing, so anyone may hear it
}
