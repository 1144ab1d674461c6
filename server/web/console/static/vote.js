// Keys for the buttons of a blind vote. They do nothing while somebody writes or with another key held.

const HELP = document.getElementById("help");
const form = document.getElementById("vote");
let sent = false;

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.target.closest("input, textarea, select, [contenteditable], dialog")) return;
  if (event.key === "?") return HELP.open || HELP.showModal();
  if (HELP.open || sent) return;
  const choice = ["0", "1", "2"].includes(event.key) && form?.querySelector(`[value="${event.key}"][name=choice]`);
  const button = event.key === "u" ? document.getElementById("undo") : choice;
  if (!button) return;
  event.preventDefault();
  sent = true;
  button.form.requestSubmit(button);
});
form?.addEventListener("submit", () => (sent = true));
// a page that the browser kept is not one that was sent
addEventListener("pageshow", () => (sent = false));
