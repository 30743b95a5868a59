// Where a project asks for it: nothing is submitted before every folded text was opened once.

import { form, say } from "./item.js";

const unread = new Set(form.querySelectorAll(".fold"));
for (const button of unread) button.addEventListener("click", () => unread.delete(button));

// Before the form's own listeners, which take the page for sent.
addEventListener("submit", (event) => {
  if (event.target !== form || !unread.size || event.submitter?.name === "press") return;
  event.preventDefault();
  event.stopImmediatePropagation();
  const [first] = unread;
  document.getElementById("state").textContent = say("unread", { number: unread.size });
  first.scrollIntoView({ block: "center" });
  first.focus();
}, { capture: true });
