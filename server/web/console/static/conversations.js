// Reads a conversation beside the list without loading the list again. Without it links load pages.
let shown = location.pathname + location.search;
const links = () => document.querySelectorAll("[data-talk]");

async function read(url) {
  const answer = await fetch(url, { headers: { accept: "text/html" } });
  if (!answer.ok || answer.redirected) return false;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const pane = page.getElementById("pane");
  if (!pane) return false;
  document.title = page.title;
  document.getElementById("pane").replaceWith(pane);
  document.querySelector(".inbox").classList.toggle("reading", Boolean(page.querySelector(".inbox.reading")));
  for (const link of links()) {
    if (link.href === url) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  pane.dispatchEvent(new CustomEvent("htmx:after:swap", { bubbles: true })); // moments become local
  return true;
}

document.addEventListener("click", async (event) => {
  const link = event.target.closest("[data-talk]");
  if (!link || !document.getElementById("pane").checkVisibility() || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  if (!(await read(link.href).catch(() => false))) return location.assign(link.href);
  history.pushState({}, "", link.href);
  shown = location.pathname + location.search;
  const title = document.getElementById("talk-title");
  title.focus({ preventScroll: true });
  const top = document.getElementById("pane").getBoundingClientRect().top;
  if (top < 0) scrollBy({ top: top - 16 });
});
document.querySelector("[data-talk][aria-current]")?.scrollIntoView({ block: "nearest" });
addEventListener("popstate", () => {
  if (location.pathname + location.search !== shown) location.reload(); // and no jump within the page
});
