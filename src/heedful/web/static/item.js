// What every item's page does beside being a form: drafts that save themselves, time spent, long texts, keys.
// Without it the form works all the same.

export const words = JSON.parse(document.getElementById("words").textContent);
export const form = document.getElementById("item");
const key = form.dataset.key;
const state = document.getElementById("state");
const seconds = form.elements.seconds;
const local = `heedful draft ${key}`;
const PAUSE = 700; // ms without a change before a draft is sent
const IDLE = 60; // seconds without a sign of life that no longer count as work
const BEAT = 5 * 60 * 1000; // ms between signs to the server that the page is still open

/** The text of `name` with its {places} filled. */
export function say(name, values = {}) {
  return words[name].replace(/\{(\w+)\}/g, (_, place) => values[place]);
}

// An input method is at work: its keys are letters in the making. Some browsers end the composition just before the
// key that ends it, so the sign stays up a moment longer.
let composing = false;
document.addEventListener("compositionstart", () => (composing = true));
document.addEventListener("compositionend", () => setTimeout(() => (composing = false), 0));

export function isComposing(event) {
  return composing || event.isComposing || event.keyCode === 229;
}

/** Whether keys that are typed at the element become text or choose in a list. */
export function takesText(element) {
  return element.matches("textarea, select, input:not([type=radio]):not([type=checkbox]), [contenteditable]");
}

export function fields() {
  const found = {};
  for (const [name, value] of new FormData(form)) if (name !== "csrf" && name !== "guideline") found[name] = value;
  return found;
}

/** Put values back into the form; what is not among them becomes empty. */
export function fill(values) {
  for (const element of form.elements) {
    if (!element.name || element.type === "hidden") continue;
    if (element.type === "radio" || element.type === "checkbox") element.checked = values[element.name] === element.value;
    else element.value = values[element.name] ?? "";
  }
  form.dispatchEvent(new CustomEvent("filled"));
}

// Drafts: a copy in this browser at once, one on the server soon after; the copy goes when the server has it.

let timer, sending = false, again = false, tries = 0;

export function changed() {
  try { localStorage.setItem(local, JSON.stringify({ at: new Date().toISOString(), values: fields() })); } catch {}
  state.textContent = words.saving;
  clearTimeout(timer);
  timer = setTimeout(send, PAUSE);
}

async function send() {
  if (sending) { again = true; return; }
  sending = true;
  const sent = JSON.stringify(fields());
  try {
    const answer = await fetch(`/item/${key}/draft`, {
      method: "PUT", body: sent, keepalive: sent.length < 60000,
      headers: { "Content-Type": "application/json", "X-CSRF-Token": form.dataset.csrf, Accept: "application/json" },
    });
    if (!answer.ok) throw new Error(answer.status);
    const told = await answer.json();
    tries = 0;
    state.textContent = told.yours ? words.saved : words.lost;
    if (sent === JSON.stringify(fields())) localStorage.removeItem(local);
  } catch {
    state.textContent = words.local;
    timer = setTimeout(send, Math.min(30000, 1000 * 2 ** tries++));
  }
  sending = false;
  if (again) { again = false; send(); }
}

form.addEventListener("input", changed);
form.addEventListener("change", changed);
addEventListener("online", () => localStorage.getItem(local) && send());
setInterval(() => document.visibilityState === "visible" && send(), BEAT);

// What was judged and taken in needs no copy any more; one that never reached the server comes back.
const done = sessionStorage.getItem("heedful submitted");
if (done && done !== key) { localStorage.removeItem(done); sessionStorage.removeItem("heedful submitted"); }
export function restore() {
  const copy = JSON.parse(localStorage.getItem(local) ?? "null");
  if (!copy || copy.at <= state.dataset.saved) return;
  fill(copy.values);
  state.textContent = words.restored;
  timer = setTimeout(send, PAUSE);
}

form.addEventListener("submit", (event) => {
  clearTimeout(timer);
  sessionStorage.setItem("heedful submitted", local);
  setTimeout(() => (document.getElementById("submit").disabled = true));
});

// Time at work: seconds in which the page was seen and something moved a moment ago.

let last = Date.now(), worked = Number(seconds.value) || 0;
for (const sign of ["keydown", "pointermove", "pointerdown", "scroll", "touchstart"])
  addEventListener(sign, () => (last = Date.now()), { passive: true, capture: true });
setInterval(() => {
  if (document.visibilityState !== "visible" || Date.now() - last > IDLE * 1000) return;
  seconds.value = String(++worked);
}, 1000);

// Long texts are folded; the button says so.

for (const text of document.querySelectorAll(".long")) {
  if (text.scrollHeight <= 480) continue;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "plain fold";
  const fold = (folded) => {
    text.classList.toggle("folded", folded);
    button.textContent = folded ? words.more : words.less;
    button.setAttribute("aria-expanded", String(!folded));
  };
  button.addEventListener("click", () => fold(!text.classList.contains("folded")));
  text.after(button);
  fold(true);
}

// The guideline is open where this browser has not shown this version yet.

const guideline = document.querySelector("[data-open-first]");
if (guideline) {
  const seen = `heedful guideline ${form.elements.guideline.value}`;
  guideline.open = !localStorage.getItem(seen);
  localStorage.setItem(seen, "1");
}

for (const count of document.querySelectorAll("[data-of]")) {
  const of = document.getElementById(count.dataset.of);
  const tell = () => (count.textContent = of.value ? `(${[...of.value].length})` : "");
  of.addEventListener("input", tell);
  tell();
}

document.addEventListener("keydown", (event) => {
  if (isComposing(event)) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    form.requestSubmit();
  }
});

document.getElementById("problems")?.focus();
restore();
