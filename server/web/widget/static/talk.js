// The conversation: messages, answers as they stream, opinions, failures.
import { button, clock, fill, get, icon, lang, link, make, say, texts } from "./dom.js";
import { Markdown, copyFrom } from "./markdown.js";
import { Refused, call, emit, events, toHost, token } from "./peers.js";

const log = get("log");
const field = get("field");
const sendButton = get("send");
const jump = get("jump");
const NEAR = 64; // px from the end within which the log follows the stream

let writing; // AbortController of the answer being written
let queued; // the message that waits for a connection: {text, client_id, at}
let follow = true;
let pinned = -1; // scrolled to the question, until the visitor scrolls
let last; // the newest answer
let asking; // timer while a person has the conversation
let hooks; // {begun, person(), restart(), answered()} of the panel

const below = () => log.scrollHeight - log.scrollTop - log.clientHeight;
const toEnd = () => (log.scrollTop = log.scrollHeight);

function watch() {
  jump.hidden = below() <= NEAR;
}

function grown() {
  if (follow) toEnd();
  watch();
}

log.addEventListener("scroll", () => {
  if (Math.abs(log.scrollTop - pinned) < 2) return;
  pinned = -1;
  follow = below() <= NEAR;
  watch();
});
jump.addEventListener("click", () => {
  follow = true;
  pinned = -1;
  toEnd();
  log.focus();
});

const seen = new Set();
let day;
function separate(date) {
  const that = date.toDateString();
  if (that === day) return;
  day = that;
  const today = that === new Date().toDateString();
  add(make("p", { class: "day" }, today ? texts.today : date.toLocaleDateString(lang, { dateStyle: "full" })));
}

const add = (element) => (jump.before(element), element);

function bubble({ id, role, text, created_at }) {
  seen.add(id);
  separate(created_at ? new Date(created_at) : new Date());
  const body = make("div", { class: "text", dir: "auto" });
  if (role === "assistant" && text) {
    const markdown = new Markdown(body);
    markdown.write(text);
    markdown.end();
  } else if (text) body.append(make("p", {}, text));
  const who = { visitor: texts.you, assistant: texts.assistant, person: texts.colleague }[role];
  const name = role === "person" ? "name" : "sr";
  return add(make("div", { class: "msg " + (role === "visitor" ? "me" : "them") }, make("span", { class: name }, who + ": "), body));
}

/** A line in the log; one that is "bad" is read aloud at once. */
function notice(kind, name, text, ...actions) {
  last?.style.removeProperty("min-block-size");
  const role = kind === "bad" && "alert";
  return add(make("div", { class: "note " + kind, role }, icon(name), make("div", {}, make("p", {}, text), ...actions)));
}

export const warn = (text, ...actions) => notice("bad", "bang", text, ...actions);

export function greet(text, suggestions) {
  bubble({ role: "assistant", text });
  if (!suggestions.length) return;
  const chip = (words) => make("li", {}, make("button", { type: "button", class: "chip", dir: "auto", onclick: () => send(words) }, words));
  add(make("ul", { class: "chips", id: "chips", "aria-label": texts.suggestions }, ...suggestions.map(chip)));
}

/** A conversation so far, or what of it is not shown yet. */
export function show(conversation) {
  if (!conversation) return;
  for (const message of conversation.messages) {
    if (seen.has(message.id)) continue;
    if (queued && message.client_id === queued.client_id) {
      if (field.value.trim() === queued.text) field.value = "";
      queue(); // the server had it
    }
    const element = bubble(message);
    if (message.role === "assistant") finish(element, message);
  }
  if (conversation.handoff?.state === "open") handedOver(conversation.handoff);
  toEnd();
}

export const spoken = () => [...log.querySelectorAll(".msg")].map(({ className, children }) => [className, children[1].innerText]);

/** What was said before stays to be read, greyed. */
export function startAnew(old = []) {
  for (const [className, text] of old) add(make("div", { class: className }, make("div", { class: "text", dir: "auto" }, text)));
  log.querySelectorAll(".msg").forEach((message) => message.classList.add("old"));
  notice("calm", "up", texts.anew);
}

/** While a person has the conversation: what they wrote, and whether they gave it back. */
async function refresh() {
  if (document.hidden) return;
  const { conversation } = await (await call("/conversation")).json();
  const { messages, handoff } = conversation;
  for (const message of messages) {
    if (seen.has(message.id) || message.role !== "person") continue;
    bubble(message);
    hooks.answered();
    say(texts.colleague + ": " + message.text);
  }
  if (handoff?.state === "open") return;
  clearInterval(asking);
  asking = undefined;
  field.placeholder = texts.placeholder;
  notice("calm", "up", texts.given_back);
  say(texts.given_back);
}

export function handedOver({ number, created_at, email, expected }) {
  asking ??= setInterval(() => refresh().catch(() => undefined), 15_000);
  const time = clock(new Date(created_at));
  const text = fill(texts.handed_over, { number, time, email });
  notice("calm", "someone", text, make("p", {}, expected ?? ""));
  field.placeholder = texts.to_person;
  toEnd();
  return text;
}

// ------------------------------------------------------------------ sending

export async function send(text, again) {
  text = text.trim();
  await hooks.begun; // what was said before, or the greeting, stands above
  if (!text || writing) return;
  get("chips")?.remove();
  log.querySelectorAll(".note.bad").forEach((note) => note.remove());
  again ??= queued?.text === text && queued;
  const message = again || { text, client_id: crypto.randomUUID() };
  if (!navigator.onLine) return undelivered(message, new Refused(0));
  const question = message.bubble ?? bubble({ role: "visitor", text });
  message.bubble = question;
  if (field.value.trim() === text) field.value = "";
  writing = new AbortController();
  compose();
  last?.style.removeProperty("min-block-size");
  const answer = (last = make("div", { class: "msg them live" }));
  const body = make("div", { class: "text", dir: "auto" });
  answer.append(make("span", { class: "sr" }, texts.assistant + ": "), body);
  add(answer);
  log.setAttribute("aria-busy", true);
  say(texts.writing);
  pin(question, answer);
  await stream(message, answer, body);
  writing = undefined;
  log.removeAttribute("aria-busy");
  answer.classList.remove("live");
  compose();
  grown();
}

/** Put the question at the top: a long answer is read from its beginning. */
function pin(question, answer) {
  answer.style.minBlockSize = Math.max(0, log.clientHeight - question.offsetHeight - 48) + "px";
  follow = false;
  log.scrollTop = question.offsetTop - 16;
  pinned = log.scrollTop;
  watch();
}

async function stream(message, answer, body) {
  const markdown = new Markdown(body);
  let waiting = "";
  let frame = 0;
  let accepted = false;
  const draw = () => {
    cancelAnimationFrame(frame);
    frame = 0;
    if (waiting) markdown.write(waiting);
    waiting = "";
    grown();
  };
  const end = () => {
    draw();
    markdown.end();
  };
  const { text, client_id } = message;
  try {
    const response = await call("/messages", { body: { text, client_id }, signal: writing.signal });
    for await (const [name, data] of events(response)) {
      if (name === "accepted") {
        accepted = true;
        queued = undefined;
        toHost("visitor", { token: token() });
        emit("message", { id: data.message.id });
      } else if (name === "delta") {
        waiting += data.text;
        frame ||= requestAnimationFrame(draw);
      } else if (name === "done") {
        end();
        answer.classList.remove("live");
        finish(answer, data.message, message);
        seen.add(data.message.id);
        emit("answer", { id: data.message.id });
        hooks.answered();
        if (data.message.state !== "stopped") read(body.textContent + person(data));
        return;
      } else if (name === "error") throw new Refused(200, data);
    }
    throw new Refused(0);
  } catch (error) {
    if (error.name !== "AbortError" && !(error instanceof Refused)) throw error;
    end();
    if (error.name === "AbortError") {
      queue();
      finish(answer, { state: "stopped" }, message);
    } else {
      if (!body.hasChildNodes()) answer.remove();
      accepted ||= error.code === "conversation_handed_over";
      undelivered(message, error, accepted);
    }
  }
}

/** Where nothing supports an answer: that a person has the conversation, or can have it. */
function person({ passed_on: handoff, handoff: offered }) {
  if (handoff) {
    emit("handoff", { number: handoff.number });
    return " " + handedOver(handoff);
  }
  if (!offered) return "";
  notice("calm", "someone", texts.unsure, link(texts.talk, () => hooks.person()));
  return " " + texts.unsure;
}

const read = (text) => say(text.length > 600 ? text.slice(0, 600) + "… " + texts.rest : text);

/** Say why there is no answer; the words go back to the field unless the server has them. */
function undelivered(message, error, accepted = false) {
  emit("error", { code: error.code ?? (error.status ? "internal" : "offline") });
  const waits = !error.status && !accepted;
  const again = link(texts.retry, () => send(message.text, message));
  const person = link(texts.talk, () => hooks.person());
  if (error.code === "conversation_handed_over") {
    notice("calm", "someone", fill(texts.passed_on, { number: error.more.handoff.number }));
    return say(texts.to_person);
  }
  if (!accepted) {
    message.bubble?.remove();
    message.bubble = undefined;
    if (!field.value.trim()) field.value = message.text;
  }
  queue(waits ? message : undefined);
  if (error.status === 401) return hooks.restart();
  if (error.code === "limit_reached") {
    const time = clock(new Date(Date.now() + (error.retryAfter ?? 60) * 1000));
    warn(fill(texts.limit, { time }), person);
  } else if (error.code === "engine_unavailable") {
    warn(texts.engine_down, again, person);
    hooks.person(texts.engine_down);
  } else if (error.status) warn(texts.failed, again, person);
  else warn(!waits ? texts.cut : navigator.onLine ? texts.offline : texts.queued, again);
  compose();
  toEnd();
}

/** Keep one message until the server has it; none: it has, or the visitor took it back.
 *
 * The page stores it beside who sends it: sent again after a reload, it is known to the server.
 */
function queue(message) {
  if (!message && !queued) return;
  queued = message && { ...message, at: Date.now() };
  toHost("visitor", { token: (token() ?? "") + (queued ? "\n" + JSON.stringify(queued) : "") });
}

/** What was kept before a reload goes on to wait; after an hour it is only there to be sent by hand. */
export function restore(message) {
  field.value ||= message.text;
  if (Date.now() - message.at < 3_600_000) queued = message;
}

export function sendQueued() {
  if (queued && field.value.trim() === queued.text) send(queued.text);
}
addEventListener("online", sendQueued);

// ------------------------------------------------------------ after an answer

function finish(element, { id, state, opinion, sources }, question) {
  const body = element.querySelector(".text");
  const row = make("div", { class: "after" });
  if (state === "stopped") {
    row.append(make("span", {}, texts.stopped));
    if (question) row.append(link(texts.again, () => send(question.text)));
    say(texts.stopped);
  } else if (state === "failed") row.append(make("span", {}, texts.cut));
  else {
    const copy = button("copy", texts.copy, () => copyFrom(body, copy));
    row.append(copy);
    if (id) row.append(...thumbs(element, id, opinion));
  }
  element.append(row);
  if (sources) element.append(make("details", { class: "from" }, make("summary", {}, texts.sources), make("ul", {}, ...sources.map(source))));
}

const source = ({ title, url }) =>
  make("li", {}, make("bdi", {}, url ? make("a", { href: url, rel: "noopener nofollow", target: "_blank" }, title) : title));

function thumbs(element, id, opinion) {
  const thanks = make("span");
  const vote = async (value, more) => {
    try {
      await (await call(`/messages/${id}/opinion`, { body: { vote: value, reasons: [], ...more } })).text();
      thanks.textContent = value ? texts.thanks : "";
      if (value) say(texts.thanks);
    } catch {
      thanks.textContent = texts.failed;
      say(texts.failed);
    }
  };
  const press = (name, value) =>
    button(name, texts[value === "up" ? "good" : "poor"], ({ currentTarget: pressed }) => {
      const on = pressed.ariaPressed !== "true";
      good.ariaPressed = poor.ariaPressed = "false";
      pressed.ariaPressed = String(on);
      element.querySelector(".why")?.remove();
      vote(on ? value : null);
      if (on && pressed === poor) ask(element, (more) => vote("down", more), poor);
    }, { "aria-pressed": String(opinion?.vote === value) });
  const good = press("good", "up");
  const poor = press("poor", "down");
  return [good, poor, thanks];
}

function ask(element, done, back) {
  const reasons = ["wrong", "unclear", "incomplete", "other"].map((value) =>
    make("label", { class: "check" }, make("input", { type: "checkbox", value }), texts["reason_" + value]));
  const words = make("textarea", { rows: 1, maxlength: 1000, dir: "auto", "aria-label": texts.say_more, placeholder: texts.say_more });
  const form = make("form", { class: "why" },
    make("fieldset", {}, make("legend", {}, texts.reasons), ...reasons), words,
    make("button", { class: "chip" }, texts.submit));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const chosen = [...form.querySelectorAll(":checked")].map((box) => box.value);
    form.remove();
    back.focus();
    done({ reasons: chosen, text: words.value.trim() || undefined });
  });
  element.append(form);
  grown();
  form.scrollIntoView({ block: "nearest" });
}

// ----------------------------------------------------------------- the field

export function compose() {
  const name = writing ? "stop" : "up";
  sendButton.firstElementChild.replaceWith(icon(name));
  sendButton.ariaLabel = writing ? texts.stop : texts.send;
  sendButton.ariaDisabled = String(!writing && !field.value.trim());
  if (CSS.supports("field-sizing", "content")) return;
  field.style.blockSize = "auto";
  field.style.blockSize = field.scrollHeight + "px";
}

export function start(panel) {
  hooks = panel;
  field.addEventListener("input", () => {
    if (queued && field.value.trim() !== queued.text) queue();
    compose();
  });
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    send(field.value);
  });
  get("compose").addEventListener("submit", (event) => {
    event.preventDefault();
    if (writing) writing.abort();
    else send(field.value);
  });
}
