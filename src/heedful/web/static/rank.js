// Ranking by keys, taps and drags. The select of each response is the truth; everything here only sets it.

import { boxKey, foldBoxes } from "./boxes.js";
import { changed, fields, fill, form, isComposing, say, takesText, tell } from "./item.js";

const cards = [...document.querySelectorAll(".response")];
const board = document.getElementById("board");
const tiers = document.getElementById("tiers");
const help = document.getElementById("help");
const left = document.getElementById("left"); // what is still to do before it can be submitted
const letters = cards.map((card) => card.dataset.letter);
const select = (letter) => form.elements[`rank-${letter}`];
const past = []; // the form before each change, for undo
let before = fields(); // the form as it stands
let at = cards[0]; // the response that keys speak of
let lastPlaced = null, picked = null;
const ready = document.getElementById("board-submit");
const phone = matchMedia("(max-width: 48rem)");
const isMarked = (card) => Boolean(form.elements[`overall-${card.dataset.letter}`].value);

/** After any change by whatever means: remember what was, draw the board. */
function note() {
  const now = fields();
  delete now.seconds;
  const was = { ...before };
  delete was.seconds;
  if (JSON.stringify(now) === JSON.stringify(was)) return;
  past.push(was);
  before = now;
  draw();
}

function place(letter, rank) {
  select(letter).value = rank;
  if (rank) lastPlaced = letter;
  note();
  changed();
  const others = letters.filter((other) => other !== letter && rank && select(other).value === rank);
  if (!rank) tell(say("unplaced", { letter }));
  else if (others.length) tell(say("tied", { letter, place: rank, others: others.join(", ") }));
  else tell(say("placed", { letter, place: rank }));
}

function undo() {
  const was = past.pop();
  if (!was) return tell(say("nothing"));
  before = was;
  fill(was);
  changed();
  tell(say("undone"));
}

function draw() {
  const ranks = ["", ...letters.map((_, i) => String(i + 1))];
  tiers.replaceChildren(...ranks.map((rank) => {
    const row = document.createElement("div");
    row.className = "tier";
    row.dataset.rank = rank;
    const name = document.createElement("button");
    name.type = "button";
    name.className = "tier-name";
    name.textContent = rank || "–";
    name.tabIndex = -1;
    row.append(name, ...letters.filter((letter) => select(letter).value === rank).map(chip));
    return row;
  }));
  for (const card of cards) card.querySelector(".placed").textContent = select(card.dataset.letter).value;
  const unplaced = letters.filter((letter) => !select(letter).value);
  const unmarked = cards.filter((card) => !isMarked(card)).map((card) => card.dataset.letter);
  const missing = [];
  if (unplaced.length) missing.push(say("to-place", { letters: unplaced.join(" ") }));
  if (unmarked.length) missing.push(say("to-mark", { letters: unmarked.join(" ") }));
  left.textContent = missing.join(" · ") || say("complete");
  ready.hidden = missing.length > 0;
}

function chip(letter) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = "chip";
  made.textContent = letter;
  made.draggable = true;
  made.tabIndex = -1;
  made.dataset.letter = letter;
  made.setAttribute("aria-pressed", String(picked === letter));
  return made;
}

tiers.addEventListener("click", (event) => {
  const chip = event.target.closest(".chip"), tier = event.target.closest(".tier");
  if (picked && tier && (!chip || chip.dataset.letter !== picked)) {
    const letter = picked;
    picked = null;
    place(letter, tier.dataset.rank);
  } else if (chip) {
    picked = picked === chip.dataset.letter ? null : chip.dataset.letter;
    if (picked) reach(cards[letters.indexOf(picked)], matchMedia("(hover: hover)").matches);
  }
  draw();
});
tiers.addEventListener("dragstart", (event) => {
  event.dataTransfer.setData("text/plain", event.target.dataset.letter);
  event.dataTransfer.effectAllowed = "move";
});
tiers.addEventListener("dragover", (event) => {
  const tier = event.target.closest(".tier");
  if (!tier) return;
  event.preventDefault();
  for (const other of tiers.children) other.classList.toggle("over", other === tier);
});
tiers.addEventListener("drop", (event) => {
  const tier = event.target.closest(".tier"), letter = event.dataTransfer.getData("text/plain");
  event.preventDefault();
  if (tier && letters.includes(letter)) place(letter, tier.dataset.rank);
  draw();
});

/** Say why a key did nothing, to everybody. */
function refuse(text) {
  left.textContent = text;
  tell(text);
}

function reach(card, focus = true) {
  if (phone.matches && card !== at && isMarked(at)) foldBoxes(at);
  at.removeAttribute("aria-current");
  at = card;
  at.setAttribute("aria-current", "true");
  if (!focus) return; // whoever points at it sees it; a page that moves under the finger loses the tap
  at.focus({ preventScroll: true });
  at.scrollIntoView({ block: "nearest" });
}

function step(by) {
  reach(cards[Math.min(cards.length - 1, Math.max(0, cards.indexOf(at) + by))]);
}

document.addEventListener("keydown", (event) => {
  if (isComposing(event) || event.altKey || event.metaKey || document.querySelector("dialog[open]")) return;
  const target = event.target;
  if (takesText(target) || target.closest(".skip")) return;
  if (event.ctrlKey) {
    if (event.code === "KeyZ") { event.preventDefault(); undo(); }
    return;
  }
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(event.code)?.[1];
  const letter = at.dataset.letter;
  if (boxKey(event, at)) {
    // a box, or the letters of the boxes
  } else if (digit && event.shiftKey && event.code.startsWith("Digit")) {
    const mark = form.querySelector(`[name="overall-${letter}"][value="${digit}"]`);
    if (mark) {
      mark.checked = true;
      note();
      changed();
      tell(say("marked", { letter, mark: digit }));
    } else refuse(say("no-mark"));
  } else if (digit && Number(digit) > cards.length) refuse(say("no-place", { place: digit, most: cards.length }));
  else if (digit) place(letter, digit === "0" ? "" : digit);
  else if (event.key === "=" || event.code === "NumpadEqual") {
    if (lastPlaced && lastPlaced !== letter) place(letter, select(lastPlaced).value);
  } else if (event.key === "ArrowDown") step(1); // left and right stay the radio buttons' own
  else if (event.key === "ArrowUp") step(-1);
  else if (event.key === "u") undo();
  else if (event.key === "c") openCompare();
  else if (event.key === "p") openPrompt();
  else if (event.key === "?") help.showModal();
  else return;
  event.preventDefault();
});

// Two responses side by side: the one at hand, and the one before it in the ranking (or on the page).

const compare = document.getElementById("compare");
const prompt = document.getElementById("prompt");
const sides = [...compare.querySelectorAll(".side")], texts = [...compare.querySelectorAll(".side-text")];

function showSides() {
  sides.forEach((side, i) => {
    const text = cards[letters.indexOf(side.value)]?.querySelector(".text") ?? prompt;
    const copies = [...text.childNodes].map((node) => node.cloneNode(true));
    for (const copy of copies) copy.id = "";
    texts[i].replaceChildren(...copies);
  });
}

function openCompare() {
  const here = letters.indexOf(at.dataset.letter);
  const rank = Number(select(letters[here]).value);
  const above = letters.filter((letter) => rank && Number(select(letter).value) && Number(select(letter).value) < rank)
    .sort((a, b) => select(b).value - select(a).value)[0];
  sides[0].value = above ?? letters[here ? here - 1 : 1];
  sides[1].value = letters[here];
  showSides();
  compare.showModal();
}

/** The prompt beside the response at hand. */
function openPrompt() {
  [sides[0].value, sides[1].value] = ["", at.dataset.letter];
  showSides();
  compare.showModal();
}

for (const side of sides) side.addEventListener("change", showSides);
document.getElementById("compare-open").addEventListener("click", openCompare);
document.getElementById("prompt-open").addEventListener("click", openPrompt);
document.getElementById("compare-close").addEventListener("click", () => compare.close());

for (const card of cards) {
  card.tabIndex = 0;
  card.addEventListener("focusin", () => reach(card, false));
}
form.addEventListener("change", note);
form.addEventListener("filled", draw);
document.getElementById("undo").addEventListener("click", undo);
document.getElementById("help-open").addEventListener("click", () => help.showModal());
document.getElementById("help-close").addEventListener("click", () => help.close());

board.hidden = false;
document.body.classList.add("with-board");
delete before.seconds;
draw();
if (phone.matches) for (const card of cards) if (card !== at && isMarked(card)) foldBoxes(card);
if (!document.getElementById("problems")) {
  reach(cards[0], false);
  if (matchMedia("(hover: hover)").matches) at.focus({ preventScroll: true }); // the page begins at its beginning
}
