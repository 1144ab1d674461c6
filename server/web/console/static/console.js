// What every page of the console does beside htmx. All of it is an improvement: pages work without.

// the words are English, in the way of writing dates that the viewer is used to
const LOCALE = navigator.language.startsWith("en") ? navigator.language : "en-GB";
const format = (options) => new Intl.DateTimeFormat(LOCALE, options);
const DAY = format({ day: "numeric", month: "short", year: "numeric" });
const CLOCK = format({ hour: "2-digit", minute: "2-digit", hour12: false });
const WHOLE = format({ dateStyle: "full", timeStyle: "long" });
const AGO = new Intl.RelativeTimeFormat(LOCALE, { numeric: "auto" });
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60]];

// moments in the viewer's zone
function localTimes(root) {
  for (const node of root.querySelectorAll("time[data-time]")) {
    const moment = new Date(node.dateTime);
    if (Number.isNaN(moment.getTime())) continue;
    node.title = WHOLE.format(moment);
    node.textContent = said(moment, node.dataset.time);
  }
}

function said(moment, style) {
  if (style === "day") return DAY.format(moment);
  if (style === "clock") return CLOCK.format(moment);
  const seconds = (moment - Date.now()) / 1000;
  if (style === "ago" && Math.abs(seconds) < 7 * 86400) {
    const [unit, length] = UNITS.find(([, size]) => Math.abs(seconds) >= size) ?? ["second", 1];
    return unit === "second" ? "just now" : AGO.format(Math.trunc(seconds / length), unit);
  }
  const today = new Date().toDateString() === moment.toDateString();
  return `${today ? "today" : DAY.format(moment)}, ${CLOCK.format(moment)}`;
}

// a status message goes after ten seconds without the pointer or the focus on it
const TOAST_MS = 10_000;

function toasts(root) {
  for (const toast of root.querySelectorAll("[data-toast]:not(.counting)")) {
    let left = TOAST_MS;
    let timer;
    let since;
    const stop = () => {
      if (!timer) return;
      clearTimeout(timer);
      timer = undefined;
      left -= Date.now() - since;
      toast.classList.add("held");
    };
    const start = () => {
      if (timer || hold.getAttribute("aria-pressed") === "true") return;
      since = Date.now();
      timer = setTimeout(() => toast.remove(), left);
      toast.classList.remove("held");
    };
    const hold = toast.querySelector("[data-toast-hold]");
    toast.classList.add("counting");
    toast.addEventListener("pointerenter", stop);
    toast.addEventListener("pointerleave", start);
    toast.addEventListener("focusin", stop);
    toast.addEventListener("focusout", start);
    hold.addEventListener("click", () => {
      const held = hold.getAttribute("aria-pressed") !== "true";
      hold.setAttribute("aria-pressed", String(held));
      if (held) stop();
    });
    toast.querySelector("[data-toast-close]").addEventListener("click", () => toast.remove());
    start();
  }
}

// a message that came with the page is read out only if it comes after the region
function announce() {
  const region = document.getElementById("toasts");
  const messages = [...region.children];
  if (!messages.length) return;
  region.replaceChildren();
  setTimeout(() => {
    region.append(...messages);
    toasts(region);
  }, 100);
}

function fail(text) {
  const region = document.getElementById("toasts");
  const message = document.createElement("div");
  message.className = "toast bad";
  const words = document.createElement("span");
  words.textContent = text;
  const close = document.createElement("button");
  close.className = "btn bare";
  close.type = "button";
  close.textContent = "Close";
  close.addEventListener("click", () => message.remove());
  message.append(words, close);
  region.replaceChildren(message);
}

// what is wrong with a form takes the focus
function focusErrors(root) {
  const summary = root.matches?.("[data-focus]") ? root : root.querySelector("[data-focus]");
  summary?.focus();
}

// code to copy: the button is there only where it can work
function copying(root) {
  for (const button of root.querySelectorAll("[data-copy][hidden]")) {
    if (!navigator.clipboard) continue;
    button.hidden = false;
    const label = [...button.childNodes];
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(button.parentElement.querySelector("pre").textContent);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Select and copy it";
      }
      setTimeout(() => button.replaceChildren(...label), 2000);
    });
  }
}

// dialogs: the link that opens one leads to a page with the same form where there is no script
function dialogs(root) {
  for (const link of root.querySelectorAll("[data-opens]")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      document.getElementById(link.dataset.opens).showModal();
    });
  }
  for (const button of root.querySelectorAll("[data-closes]")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
}

// dropping files on the zone, and the progress of an upload (fetch tells of none)
function uploads(root) {
  for (const zone of root.querySelectorAll("[data-drop]")) {
    const input = zone.querySelector("input[type=file]");
    for (const name of ["dragenter", "dragover"]) {
      zone.addEventListener(name, (event) => {
        event.preventDefault();
        zone.classList.add("over");
      });
    }
    for (const name of ["dragleave", "drop"]) {
      zone.addEventListener(name, () => zone.classList.remove("over"));
    }
    zone.addEventListener("drop", (event) => {
      event.preventDefault();
      input.files = event.dataTransfer.files;
      input.dispatchEvent(new Event("change", { bubbles: true }));
    });
  }
  for (const form of root.querySelectorAll("form[data-upload]")) {
    const most = Number(form.dataset.maxBytes);
    const input = form.querySelector("input[type=file]");
    input.addEventListener("change", () => {
      const isTooLarge = most && input.files[0]?.size > most;
      input.setCustomValidity(isTooLarge ? `This file is larger than ${form.dataset.max}.` : "");
      input.reportValidity();
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      send(form, event.submitter);
    });
  }
}

function send(form, submitter) {
  const bar = form.querySelector("progress");
  const words = form.querySelector("[data-progress]");
  const request = new XMLHttpRequest();
  request.open("POST", form.action);
  request.setRequestHeader("x-csrf-token", form.elements.csrf_token.value);
  request.upload.addEventListener("progress", (event) => {
    const percent = Math.floor((event.loaded / event.total) * 100);
    bar.hidden = false;
    bar.value = percent;
    words.textContent = percent < 100 ? `${percent} % sent` : "Sent; it is being looked at";
  });
  request.addEventListener("load", () => {
    // without a location a redirect was followed, to where the plain form would have gone
    if (request.status < 400)
      return location.assign(request.getResponseHeader("location") ?? request.responseURL);
    const answer = new DOMParser().parseFromString(request.responseText, "text/html");
    const content = answer.getElementById("main");
    if (!content) return over("The server did not take the file. Try again.");
    const main = document.getElementById("main");
    main.replaceChildren(...content.childNodes);
    window.htmx?.process(main);
    start(main);
  });
  request.addEventListener("error", () => over("The connection broke. The file is still chosen: try again."));
  const over = (text) => {
    bar.hidden = true;
    words.textContent = "";
    if (submitter) submitter.disabled = false;
    fail(text);
  };
  if (submitter) submitter.disabled = true;
  request.send(new FormData(form, submitter));
}

function start(root) {
  localTimes(root);
  toasts(root);
  copying(root);
  dialogs(root);
  uploads(root);
  focusErrors(root);
}

// menus close on Escape and on a click beside them
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  const open = event.target.closest?.("details[data-menu][open]");
  if (!open) return;
  open.open = false;
  open.querySelector("summary").focus();
});
document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details[data-menu][open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});
// what asks again by itself rests while nobody sees it
document.addEventListener("htmx:before:request", (event) => {
  if (document.hidden && event.target.matches("[hx-trigger^='every ']")) event.preventDefault();
});
document.addEventListener("htmx:after:swap", (event) => start(event.target));
document.addEventListener("htmx:response:error", (event) => {
  const { status, headers } = event.detail.ctx.response;
  if (status < 500) return; // those are swapped, and say it themselves
  fail(`Something went wrong (${status}). Try again; the request was ${headers.get("x-request-id")}.`);
});
document.addEventListener("htmx:error", () => fail("The server does not answer. Try again in a moment."));

announce();
start(document);
