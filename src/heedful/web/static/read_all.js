// Where a project asks for it: nothing is submitted before every folded text was opened once.

import { form, say } from "./item.js";

// Before the form's own listeners, which take the page for sent.
addEventListener("submit", (event) => {
  const unread = form.querySelectorAll(".fold:not([data-opened])");
  if (event.target !== form || !unread.length || event.submitter?.name === "press") return;
  event.preventDefault();
  event.stopImmediatePropagation();
  const [first] = unread;
  document.getElementById("state").textContent = say("unread", { number: unread.length });
  first.scrollIntoView({ block: "center" });
  first.focus();
}, { capture: true });
