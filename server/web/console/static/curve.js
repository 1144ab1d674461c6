// The curve of one run, drawn as its points come. The page holds the points that it was rendered with;
// the run's events are read from the one after those, so that none is missing and none comes twice.
/* global uPlot */

const box = document.getElementById("curve");
const REFRESH_MS = 2_000;
const RETRY_MS = 2_000;
const GIB = 2 ** 30;
const marks = JSON.parse(box.dataset.marks);
let after = Number(box.dataset.after);
let source;
let ended = false;

// ---------------------------------------------------------------- the points

// as server/jobs/curve.py: by the trainer's time, and of a step that was repeated the last counts
export function points() {
  const found = new Map();
  for (const [kind, , step, loss, speed, memory] of marks.toSorted((a, b) => a[1] - b[1])) {
    if (kind === "step") found.set(step, { step, loss, speed, memory, validation: null });
    else found.set(step, { step, loss: null, speed: null, memory: null, ...found.get(step), validation: loss });
  }
  return [...found.values()].sort((a, b) => a.step - b.step);
}

// ---------------------------------------------------------------- what comes

function connect() {
  source = new EventSource(`${box.dataset.events}?after=${after}`);
  source.addEventListener("marks", (event) => {
    if (!isNew(event)) return;
    marks.push(...JSON.parse(event.data));
    draw();
    refreshSoon();
  });
  source.addEventListener("changed", (event) => {
    isNew(event);
    refreshSoon();
  });
  source.addEventListener("end", () => {
    ended = true;
    source.close();
    refreshSoon();
  });
  // a browser that gave up is helped; one that tries again by itself sends Last-Event-ID
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED && !ended) setTimeout(connect, RETRY_MS);
  });
}

function isNew(event) {
  const number = Number(event.lastEventId);
  if (number <= after) return false;
  after = number;
  return true;
}

// ------------------------------------- the words: the server writes them anew

let due;
let refreshedAt = 0;

function refreshSoon() {
  due ??= setTimeout(refresh, Math.max(0, refreshedAt + REFRESH_MS - Date.now()));
}

async function refresh() {
  refreshedAt = Date.now();
  due = undefined;
  let fresh;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (answer.redirected) return location.reload(); // signed out
    if (!answer.ok) return;
    fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  } catch {
    return; // the next event tries again
  }
  for (const part of fresh.querySelectorAll("[data-part], [data-shell]")) replace(document.getElementById(part.id), part);
  const curve = fresh.getElementById("curve");
  for (const name of ["steps", "growing", "expected", "reference", "referenceName"]) box.dataset[name] = curve.dataset[name];
  draw();
  const status = document.getElementById("run-status");
  const said = fresh.getElementById("run-status").dataset.status;
  if (status.dataset.status !== said) status.textContent = status.dataset.status = said;
}

function replace(old, part) {
  if (!old || signature(old) === signature(part)) return;
  const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
  const scrolled = old.querySelector("[tabindex='0']")?.scrollTop ?? 0;
  const made = document.importNode(part, true);
  old.replaceWith(made);
  const scroller = made.querySelector("[tabindex='0']");
  if (scroller) scroller.scrollTop = scrolled;
  made.dispatchEvent(new Event("htmx:after:swap", { bubbles: true })); // console.js sees to times and dialogs
  if (focused) (document.getElementById(focused) ?? document.getElementById("main")).focus({ preventScroll: true });
}

// moments are written in the viewer's zone after they came: they do not count as a change
function signature(node) {
  const copy = node.cloneNode(true);
  for (const time of copy.querySelectorAll("time")) {
    time.textContent = "";
    time.removeAttribute("title");
  }
  return copy.outerHTML;
}

// ---------------------------------------------------------------- the drawing

let plot;
const reading = document.createElement("div");
reading.className = "reading";
reading.hidden = true;

const MEASURES = {
  loss: { of: (p) => p.loss, digits: 2, unit: "" },
  speed: { of: (p) => p.speed, digits: 0, unit: " tokens/s" },
  memory: { of: (p) => (p.memory ? p.memory / GIB : null), digits: 1, unit: " GiB" },
};

function colours() {
  if (matchMedia("(forced-colors: active)").matches)
    return { line: "Highlight", level: "LinkText", dot: "CanvasText", text: "CanvasText", grid: "GrayText", ground: "Canvas" };
  const style = getComputedStyle(box);
  const of = (name) => style.getPropertyValue(`--${name}`).trim();
  return { line: of("cand"), level: of(box.dataset.measure === "loss" ? "live" : "base"), dot: of("ink"), text: of("ink-2"), grid: of("line"), ground: of("surface") };
}

function data() {
  const all = points();
  const { of } = MEASURES[box.dataset.measure];
  const rows = [all.map((p) => p.step), all.map(of)];
  if (box.dataset.measure === "loss") rows.push(all.map((p) => p.validation));
  return rows;
}

function level() {
  const { measure, reference, referenceName, expected } = box.dataset;
  if (measure === "loss" && reference) return { value: Number(reference), name: referenceName };
  if (measure === "memory" && expected) return { value: Number(expected) / GIB, name: "estimate" };
  return undefined;
}

function last() {
  return Number(box.dataset.steps) || points().at(-1)?.step || 1;
}

function draw() {
  const rows = data();
  if (!rows[1].some((value) => value !== null)) return;
  if (plot) return plot.setData(rows);
  const { width } = box.getBoundingClientRect();
  box.replaceChildren(reading);
  box.classList.add("drawn");
  plot = new uPlot(options(width), rows, box);
}

function options(width) {
  const colour = colours();
  const font = `12px ${getComputedStyle(box).fontFamily}`;
  const axis = { stroke: colour.text, font, grid: { stroke: colour.grid, width: 1 }, ticks: { show: false } };
  const series = [{}, { stroke: colour.line, width: 2, points: { show: false }, spanGaps: true }];
  if (box.dataset.measure === "loss")
    series.push({ stroke: colour.dot, width: 1.25, dash: [2, 4], spanGaps: true, points: { show: true, size: 8, fill: colour.dot, stroke: colour.dot } });
  return {
    width: Math.floor(width) - 16,
    height: matchMedia("(max-width: 50rem)").matches ? 220 : 268,
    padding: [10, 6, 0, 0],
    legend: { show: false },
    cursor: { drag: { x: false, y: false }, y: false, points: { size: 7 } },
    scales: {
      x: { time: false, range: () => [0, last()] },
      y: { range: (_plot, least, most) => span(Math.min(0, least), Math.max(most, level()?.value ?? 0)) },
    },
    axes: [
      { ...axis, size: 28, gap: 6, grid: { show: false }, values: (_plot, splits) => splits.map((n) => (n === last() ? "" : `${n}`)), splits: () => ticks(last()) },
      { ...axis, size: 48, gap: 8 },
    ],
    series,
    hooks: { drawAxes: [(u) => drawLevel(u, colour)], draw: [(u) => drawNow(u, colour)], setCursor: [read] },
  };
}

// the x axis ends where the run does, also where that is no round number
function ticks(end) {
  const size = [1, 2, 5].flatMap((n) => [n, n * 10, n * 100, n * 1000, n * 10000]).sort((a, b) => a - b).find((n) => end / n <= 5) ?? end;
  const found = [];
  for (let n = 0; n <= end * 0.9; n += size) found.push(n);
  return [...found, end];
}

function span(least, most) {
  const size = 10 ** Math.floor(Math.log10(Math.max(most - least, 1e-3)));
  const step = [0.2, 0.5, 1, 2].map((n) => n * size).find((n) => (most - least) / n <= 5);
  return [Math.floor(least / step) * step, Math.ceil(most / step - 1e-9) * step];
}

function line(u, colour, dash, from, to) {
  const { ctx } = u;
  ctx.save();
  ctx.strokeStyle = colour;
  ctx.lineWidth = 1.5 * devicePixelRatio;
  ctx.setLineDash(dash.map((n) => n * devicePixelRatio));
  ctx.beginPath();
  ctx.moveTo(...from);
  ctx.lineTo(...to);
  ctx.stroke();
  ctx.restore();
}

function tag(u, text, colour, ground, x, y, align, weight = 600) {
  const { ctx } = u;
  ctx.save();
  ctx.font = `${weight} ${12 * devicePixelRatio}px ${getComputedStyle(box).fontFamily}`;
  ctx.textAlign = align;
  ctx.lineWidth = 4 * devicePixelRatio;
  ctx.lineJoin = "round";
  ctx.strokeStyle = ground;
  ctx.fillStyle = colour;
  ctx.strokeText(text, x, y);
  ctx.fillText(text, x, y);
  ctx.restore();
}

function drawLevel(u, colour) {
  // the axis would cut off a label in the middle of its end
  const end = u.bbox.left + u.bbox.width;
  tag(u, `step ${last()}`, colour.text, colour.ground, end, u.bbox.top + u.bbox.height + 15 * devicePixelRatio, "end", 400);
  const found = level();
  if (!found) return;
  const y = u.valToPos(found.value, "y", true);
  line(u, colour.level, box.dataset.measure === "loss" ? [6, 4] : [2, 3], [u.bbox.left, y], [end, y]);
  const text = `${found.name}: ${found.value.toFixed(MEASURES[box.dataset.measure].digits)}`;
  tag(u, text, colour.level, colour.ground, end, y + (y < u.bbox.top + u.bbox.height * 0.1 ? 18 : -9) * devicePixelRatio, "end");
}

function drawNow(u, colour) {
  if (!box.dataset.growing) return;
  const index = u.data[1].findLastIndex((value) => value !== null);
  const x = u.valToPos(u.data[0][index], "x", true);
  const value = u.data[1][index];
  line(u, colour.text, [2, 3], [x, u.bbox.top], [x, u.bbox.top + u.bbox.height]);
  const atEnd = x > u.bbox.left + u.bbox.width * 0.8;
  const text = `${format(value)} now`;
  tag(u, text, colour.line, colour.ground, x + (atEnd ? -8 : 8) * devicePixelRatio, u.valToPos(value, "y", true) + 18 * devicePixelRatio, atEnd ? "end" : "start");
}

function format(value) {
  const { digits } = MEASURES[box.dataset.measure];
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

// what the pointer is over; the table beside the curve says the same
function read(u) {
  const index = u.cursor.idx;
  reading.hidden = index === null || index === undefined;
  if (reading.hidden) return;
  const [steps, values, validations] = u.data;
  const words = [`step ${steps[index]}`];
  if (values[index] !== null) words.push(`${format(values[index])}${MEASURES[box.dataset.measure].unit}`);
  if (validations?.[index] != null) words.push(`validation ${format(validations[index])}`);
  reading.textContent = words.join(" · ");
  const left = u.over.offsetLeft + u.cursor.left;
  const side = left > box.clientWidth / 2 ? -reading.offsetWidth - 12 : 12;
  reading.style.left = `${left + side}px`;
  reading.style.top = `${u.over.offsetTop + 4}px`;
}

function again() {
  plot?.destroy();
  plot = undefined;
  draw();
}

draw();
new ResizeObserver(() => {
  if (plot) plot.setSize({ width: Math.floor(box.getBoundingClientRect().width) - 16, height: plot.height });
}).observe(box);
for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)", "(max-width: 50rem)"])
  matchMedia(query).addEventListener("change", again);

// one connection a page, and none of a page that is left or kept in the browser's memory
if (box.dataset.events) {
  connect();
  addEventListener("pagehide", () => source.close());
  addEventListener("pageshow", (event) => event.persisted && !ended && connect());
}
