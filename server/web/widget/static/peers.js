// The page around the frame, and the server. Nothing is stored in here.

let origin;

export function toHost(type, detail) {
  if (origin) parent.postMessage({ t: "tt", v: 1, type, ...detail }, origin);
}

/** Tell the page that something happened: `Tenantune.on(name)`. */
export const emit = (name, detail) => toHost("event", { name, detail });

/** Call `handlers[type]` for the embedding page's messages; "hello" settles its origin. */
export function listen(handlers) {
  addEventListener("message", ({ source, origin: from, data }) => {
    if (source !== parent || parent === window || data?.t !== "tt" || data.v !== 1) return;
    if (data.type === "hello") origin ??= from;
    if (from === origin && Object.hasOwn(handlers, data.type)) handlers[data.type](data);
  });
  parent.postMessage({ t: "tt", v: 1, type: "ready" }, "*"); // says nothing, so anyone may hear it
}

const base = document.body.dataset.address;
let bearer;
let who; // identity or said, as the server wants them
let until = 0;
let visitor;
let started;

/** An answer of the server that is not the wanted one; status 0: no connection. */
export class Refused extends Error {
  constructor(status, { code, detail, param, retry_after, ...more } = {}) {
    super(detail ?? code);
    Object.assign(this, { status, code, param, retryAfter: retry_after, more });
  }
}

async function request(path, { body, method = body ? "POST" : "GET", signal } = {}) {
  const headers = {};
  if (bearer) headers.authorization = "Bearer " + bearer;
  if (body) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(base + path, {
      method, signal, headers, body: body && JSON.stringify(body), credentials: "omit",
    });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Refused(0);
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  problem.retry_after ??= Number(response.headers.get("retry-after")) || undefined;
  throw new Refused(response.status, problem);
}

async function session(path, body) {
  const answer = await (await request(path, { body: { ...body, ...who, visitor } })).json();
  bearer = answer.session;
  until = Date.now() + answer.expires_in * 1000;
  visitor = answer.visitor; // none for one who is identified
  return answer;
}

/** Make a session of the document's nonce: {started_anew, conversation}. */
export function begin(token, identity) {
  visitor = token || undefined;
  who = identity && of(identity);
  const nonce = document.querySelector("meta[name=tt-nonce]").content;
  return (started = session("/session", { nonce }));
}

/** Who the site says this is: signed ({token}), or only said ({name, email}). */
const of = ({ token, name, email }) => (token ? { identity: token } : { said: { name, email } });
const renew = () => session("/session/renew");

export async function identify(identity) {
  who = of(identity);
  await started;
  return renew();
}

/** Call an endpoint with the session, renewed before it ends and once when it has ended. */
export async function call(path, options) {
  await started;
  if (Date.now() > until - 30_000) await renew();
  try {
    return await request(path, options);
  } catch (error) {
    if (error.status !== 401) throw error;
    await renew();
    return request(path, options);
  }
}

export const token = () => visitor;

/** The events of a text/event-stream: [name, data]. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      throw error.name === "AbortError" ? error : new Refused(0);
    });
    if (done) return;
    const blocks = (buffer + value).split(/\r?\n\r?\n/);
    buffer = blocks.pop();
    for (const block of blocks) {
      const field = (name) => block.match(new RegExp(`^${name}: ?(.*)`, "m"))?.[1];
      if (field("data")) yield [field("event"), JSON.parse(field("data"))];
    }
  }
}
