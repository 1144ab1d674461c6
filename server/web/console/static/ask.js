// Shows the answers of several models as they are written. Without it the form brings a whole page.

const form = document.getElementById("ask");
const stop = document.getElementById("stop");
const send = document.getElementById("send");
const answers = document.getElementById("answers");
const status = document.getElementById("ask-status");
const voices = new Map([...answers.querySelectorAll("[data-voice]")].map((box) => [box.dataset.voice, box]));
let asking;

form.addEventListener("submit", (event) => {
  event.preventDefault();
  ask(new URLSearchParams(new FormData(form)));
});
stop.addEventListener("click", () => asking?.abort());
addEventListener("pagehide", () => asking?.abort());

async function ask(body) {
  asking?.abort();
  const mine = (asking = new AbortController());
  begin(body.get("question"));
  let words = "All have answered.";
  try {
    const response = await fetch(form.dataset.stream, { method: "POST", body, signal: mine.signal });
    // the page knows how to say it: a mistake in the form, or somebody who is not signed in any more
    if (!response.ok || response.redirected) return form.submit();
    for await (const piece of lines(response.body)) take(piece);
  } catch {
    words = mine.signal.aborted ? "Stopped." : "The connection broke. Ask again.";
  }
  if (mine === asking) end(words);
}

function begin(question) {
  document.getElementById("asked").textContent = question;
  for (const [kind, box] of voices) {
    box.querySelector("[data-answer]").replaceChildren();
    box.querySelector("[data-said]").textContent = "Writing";
    box.classList.add("writing");
    const chosen = form.elements.version;
    if (kind === "cand" && chosen) box.querySelector(".chip").textContent = chosen.selectedOptions[0].text;
  }
  answers.hidden = false;
  stop.hidden = false;
  send.disabled = true;
  stop.focus();
  say("The answers are being written.");
}

function take(piece) {
  const box = voices.get(piece.kind);
  const answer = box.querySelector("[data-answer]");
  if (piece.text) answer.append(piece.text);
  if (!piece.end) return;
  box.classList.remove("writing");
  let words = "";
  if (piece.error) words = `No answer: ${piece.error}`;
  else if (piece.cut) words = "Cut off at its greatest length.";
  else if (!answer.textContent) words = "It answered nothing.";
  box.querySelector("[data-said]").textContent = words;
}

function end(words) {
  for (const box of voices.values()) {
    if (!box.classList.contains("writing")) continue;
    box.classList.remove("writing");
    box.querySelector("[data-said]").textContent = words;
  }
  const held = document.activeElement === stop;
  stop.hidden = true;
  send.disabled = false;
  if (held) send.focus();
  say(words);
}

function say(words) {
  status.textContent = words;
}

async function* lines(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const whole = rest.split("\n");
    rest = whole.pop();
    for (const line of whole) yield JSON.parse(line);
  }
}
