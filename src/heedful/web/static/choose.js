// Questions answered by digits: the n-th answer to the question one is at, and on to the next open one.
// The radio buttons are the truth; everything here only sets them.

import { boxKey } from "./boxes.js";
import { changed, fields, fill, form, isComposing, say, takesText, tell } from "./item.js";

const questions = [...form.querySelectorAll("[data-keys]")];
const help = document.getElementById("help");
const answers = (question) => [...question.querySelectorAll("input[type=radio]")];
const isOpen = (question) => !answers(question).some((radio) => radio.checked);
const past = []; // the form before each change, for undo
let before = said();
let at = questions.find(isOpen) ?? questions[0]; // the question that digits answer

function said() {
  const found = fields();
  delete found.seconds;
  return found;
}

/** After any change by whatever means: remember what was. */
function note() {
  const now = said();
  if (JSON.stringify(now) === JSON.stringify(before)) return;
  past.push(before);
  before = now;
}

function reach(question) {
  at.removeAttribute("aria-current");
  at = question;
  at.setAttribute("aria-current", "true");
}

/** To the next question or the one before: left and right choose within one, and nothing is chosen in passing. */
function step(by) {
  const aim = questions[Math.min(questions.length - 1, Math.max(0, questions.indexOf(at) + by))];
  (answers(aim).find((radio) => radio.checked) ?? answers(aim)[0]).focus();
}

/** Answer by this radio button, and go where the next answer is wanted. */
export function choose(radio) {
  radio.checked = true;
  note();
  changed();
  const later = questions.slice(questions.indexOf(at) + 1);
  const next = later.find(isOpen) ?? questions.find(isOpen);
  const aim = next ? answers(next)[0] : radio;
  aim.focus({ preventScroll: true });
  aim.closest("[data-keys]").scrollIntoView({ block: "nearest" });
}

export function undo() {
  const was = past.pop();
  if (!was) return tell(say("nothing"));
  before = was;
  fill(was);
  changed();
  tell(say("undone"));
}

/** Whether a key that was pressed is ours to read. */
export function isOurs(event) {
  const aside = event.target.closest(".skip, dialog") || at.closest("details:not([open])");
  return !(isComposing(event) || event.altKey || event.metaKey || takesText(event.target) || aside);
}

document.addEventListener("keydown", (event) => {
  if (!isOurs(event)) return;
  if (event.ctrlKey) {
    if (event.code === "KeyZ") { event.preventDefault(); undo(); }
    return;
  }
  // Shift or not: on the page that ranks, where plain digits place, Shift and a digit mark.
  const digit = /^(?:Digit|Numpad)([1-9])$/.exec(event.code)?.[1];
  const radio = digit && answers(at)[Number(digit) - 1];
  const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (form.querySelector(".boxes") && boxKey(event, form)) {
    // a box, or the letters of the boxes
  } else if (radio) choose(radio);
  else if (digit) tell(say("no-answer", { most: answers(at).length }));
  else if (by && event.target.type === "radio") step(by);
  else if (event.key === "u") undo();
  else if (event.key === "?") help.showModal();
  else return;
  event.preventDefault();
});

for (const question of questions) question.addEventListener("focusin", () => reach(question));
form.addEventListener("change", note);
for (const id of ["undo", "help-open"]) document.getElementById(id).hidden = false;
document.getElementById("undo").addEventListener("click", undo);
document.getElementById("help-open").addEventListener("click", () => help.showModal());
document.getElementById("help-close").addEventListener("click", () => help.close());
reach(at);
