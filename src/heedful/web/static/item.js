// What every item's page does beside being a form: drafts that save themselves, time spent, long texts, keys.
// Without it the form works all the same.

export const words = JSON.parse(document.getElementById("words").textContent);
export const form = document.getElementById("item");
const key = form.dataset.key;
const state = document.getElementById("state");
const seconds = form.elements.seconds;
const submits = document.querySelectorAll("#submit, #board-submit");
const local = `heedful draft ${form.dataset.person} ${key}`;
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

const live = document.getElementById("live");

/** For who does not see the page. */
export function tell(text) {
  live.textContent = "";
  setTimeout(() => (live.textContent = text));
}

/** The form that Ctrl+Enter is meant for: the one around what has the focus, the item's where there is none. */
export function formOf(event) {
  if (document.querySelector("dialog[open]")) return null; // what one looks at is not the page behind it
  const around = event.target.closest("form") ?? form;
  return around === form || around.closest(".skip") ? around : null;
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

// Drafts: a copy in this browser at once, one on the server soon after; the copy goes when the server says that it has
// it. Both name the server's version that they were made from, and neither takes the place of a newer one.

let timer, sending = false, again = false, stale = false, tries = 0;
let version = state.dataset.version;
let unanswered = []; // what was sent and may have been kept, though no answer came back

/** What the values say, whatever their order and the time spent. */
const print = (values) => JSON.stringify(Object.entries(values).filter(([name]) => name !== "seconds").sort());

function stored() {
  try { return JSON.parse(localStorage.getItem(local)); } catch { return null; }
}

function keep() {
  try { localStorage.setItem(local, JSON.stringify({ version, unanswered, values: fields() })); } catch {}
}

function forget() {
  try { localStorage.removeItem(local); } catch {}
}

/** Say what only the labeler can decide, with a button or a link beside it. */
function ask(text, label, act) {
  const choice = document.createElement(typeof act === "string" ? "a" : "button");
  choice.textContent = label;
  if (typeof act === "string") choice.href = act;
  else {
    choice.type = "button";
    choice.className = "plain";
    choice.addEventListener("click", act);
  }
  state.replaceChildren(text, " ", choice);
}

const put = (what, headers, body) => fetch(`/item/${key}/${what}`, {
  method: "PUT", body, keepalive: !body || body.length < 60000,
  headers: { "Content-Type": "application/json", "X-CSRF-Token": form.dataset.csrf, Accept: "application/json", ...headers },
});

export function changed() {
  keep();
  if (stale) return;
  state.textContent = words.saving;
  clearTimeout(timer);
  timer = setTimeout(send, PAUSE);
}

async function send() {
  if (sending) { again = true; return; }
  sending = true;
  const values = fields(), sent = print(values);
  unanswered.push(sent);
  keep();
  try {
    const answer = await put("draft", { "X-Draft-Version": version }, JSON.stringify(values));
    if (answer.status === 401 || answer.status === 403) ask(words.out, words.back, `/item/${key}`);
    else if (answer.status === 409) met(await answer.json());
    else if (!answer.ok) throw new Error(answer.status);
    else kept(await answer.json(), sent);
  } catch {
    state.textContent = words.local;
    timer = setTimeout(send, Math.min(30000, 1000 * 2 ** tries++));
  }
  sending = false;
  if (again) { again = false; send(); }
}

function kept(told, sent) {
  version = told.version;
  unanswered = [];
  tries = 0;
  state.textContent = told.yours ? words.saved : words.lost;
  if (sent === print(fields())) forget();
  else keep();
}

/** The server has another version than ours was made from: one of our own whose answer was lost, or another window's. */
function met(told) {
  const ours = unanswered.includes(print(told.fields));
  unanswered = [];
  if (ours) {
    version = told.version;
    again = true;
    return;
  }
  stale = true;
  keep();
  ask(words.stale, words["keep-this"], () => {
    stale = false;
    version = told.version;
    send();
  });
}

/** What stands on the page is now the server's version of that name. */
export function follow(name) {
  version = name;
}

form.addEventListener("input", changed);
form.addEventListener("change", changed);
addEventListener("online", () => stored() && !stale && send());

// A window left open keeps the item its labeler's; what it shows may be older than what another one has saved.
setInterval(async () => {
  if (document.visibilityState !== "visible") return;
  const told = await put("lease").then((answer) => answer.json(), () => ({}));
  if (told.yours === false) state.textContent = words.lost;
}, BEAT);

/** What never reached the server comes back; where the server has something newer, if the labeler wants it. */
function restore() {
  const copy = stored();
  if (!copy) return;
  const shown = print(fields());
  if (copy.version !== version && print(copy.values) !== shown && !copy.unanswered?.includes(shown)) {
    ask(words.older, words["show-it"], () => {
      fill(copy.values);
      changed();
    });
    return;
  }
  fill(copy.values);
  if (print(copy.values) !== shown) state.textContent = words.restored;
  timer = setTimeout(send, PAUSE);
}

// The copy stays until the page that follows says that the judgement is there (taken.js).
form.addEventListener("submit", () => {
  clearTimeout(timer);
  setTimeout(() => submits.forEach((button) => (button.disabled = true)));
});
addEventListener("pageshow", () => submits.forEach((button) => (button.disabled = false)));

// Time at work: seconds in which the page was seen and something moved a moment ago.

let last = Date.now(), worked = Number(seconds.value) || 0;
for (const sign of ["keydown", "pointermove", "pointerdown", "scroll", "touchstart"])
  addEventListener(sign, () => (last = Date.now()), { passive: true, capture: true });
setInterval(() => {
  if (document.visibilityState !== "visible" || Date.now() - last > IDLE * 1000) return;
  seconds.value = String(++worked);
}, 1000);

// Long texts are folded; the button says so.

function foldLong(text) {
  if (text.scrollHeight <= 480) return;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "plain fold";
  const fold = (folded) => {
    text.classList.toggle("folded", folded);
    button.textContent = folded ? words.more : words.less;
    button.setAttribute("aria-expanded", String(!folded));
  };
  button.addEventListener("click", () => {
    button.dataset.opened = "yes";
    fold(!text.classList.contains("folded"));
  });
  text.after(button);
  fold(true);
}
for (const text of document.querySelectorAll(".long")) {
  const shut = text.closest("details:not([open])"); // what is not shown has no height
  if (shut) shut.addEventListener("toggle", () => foldLong(text), { once: true });
  else foldLong(text);
}

// The guideline is open where this browser has not shown this version to this account yet.

const guideline = document.querySelector("[data-open-first]");
if (guideline) {
  const seen = `heedful guideline ${guideline.dataset.openFirst} ${form.elements.guideline.value}`;
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
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  const meant = formOf(event);
  if (!meant) return;
  event.preventDefault();
  meant.requestSubmit();
});

document.getElementById("problems")?.focus();
restore();
