// The page around the panel of the preview: says hello to it, as the loader does on a site.
const frame = document.querySelector("[data-preview]");
let visitor = null; // kept as long as this page: a preview leaves nothing behind

if (frame) {
  addEventListener("message", ({ source, origin, data }) => {
    if (source !== frame.contentWindow || origin !== location.origin) return;
    if (data?.t !== "tt" || data.v !== 1) return;
    if (data.type === "visitor") visitor = data.token;
    // not open: an open panel takes the focus
    if (data.type === "ready") {
      frame.contentWindow.postMessage({ t: "tt", v: 1, type: "hello", visitor, identity: null, open: false }, origin);
    }
  });
  frame.src = frame.dataset.preview; // only now is there somebody to hear it
}
