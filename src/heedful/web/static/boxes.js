// A response's boxes by keys: b shows a letter at each, and the letter ticks it. On a phone those of a response that is
// marked fold to a line. The checkboxes are the truth; everything here only sets them.

import { say, tell } from "./item.js";

const LETTERS = "abcdefghijklmnopqrstuvwxyz";
let shown = null; // the boxes whose letters are shown

for (const boxes of document.querySelectorAll(".boxes")) {
  boxes.querySelectorAll("label").forEach((label, i) => {
    const key = document.createElement("kbd");
    key.className = "box-key";
    key.ariaHidden = "true";
    key.textContent = LETTERS[i] ?? "";
    label.prepend(key);
  });
}

function hide() {
  shown?.classList.remove("keyed");
  shown = null;
}

/** Whether the key was about the boxes within the element; if so it is done. */
export function boxKey(event, within) {
  if (["Shift", "CapsLock"].includes(event.key)) return false;
  const boxes = shown;
  hide();
  if (boxes) {
    const box = boxes.querySelectorAll("input")[LETTERS.indexOf(event.key.toLowerCase())];
    if (!box || event.key.length > 1) return event.key === "Escape";
    box.click();
    tell(say(box.checked ? "ticked" : "unticked", { box: box.labels[0].lastChild.textContent.trim() }));
    return true;
  }
  if (event.key !== "b") return false;
  shown = within.querySelector(".boxes");
  unfold(shown);
  shown.classList.add("keyed");
  shown.scrollIntoView({ block: "nearest" });
  tell(say("which-box"));
  return true;
}

/** Only what is ticked stays, on a line, with a button that brings the others back. */
export function foldBoxes(within) {
  const boxes = within.querySelector(".boxes");
  if (boxes.classList.contains("shut")) return;
  boxes.classList.add("shut");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "plain";
  button.textContent = say("all-boxes");
  button.addEventListener("click", () => {
    unfold(boxes);
    boxes.querySelector("input").focus({ preventScroll: true });
  });
  boxes.append(button);
}

function unfold(boxes) {
  boxes.classList.remove("shut");
  boxes.querySelector("button")?.remove();
}

addEventListener("pointerdown", hide);
