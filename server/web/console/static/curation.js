// Keys for the doubt that is shown: a replaces it, r leaves it. They do nothing while somebody writes or with another key held.

const form = document.getElementById("decide");
const CHOICES = { a: "approve", r: "reject" };
let sent = false;

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
  if (sent || event.target.closest("input, textarea, select, [contenteditable], dialog")) return;
  const button = CHOICES[event.key] && form?.querySelector(`[value="${CHOICES[event.key]}"][name=decision]`);
  if (!button) return;
  event.preventDefault();
  sent = true;
  form.requestSubmit(button);
});
form?.addEventListener("submit", () => (sent = true));
// a page that the browser kept is not one that was sent
addEventListener("pageshow", () => (sent = false));
