// A chat whose answers appear as they are written. Sending is a form's post without it; what stands in the chat is
// always what the server shows.

import { changed, fields, fill, follow, form, formOf, isComposing } from "./item.js";
import { listen } from "./stream.js";

const said = JSON.parse(document.getElementById("stream-words").textContent);
const live = document.getElementById("live");
const waiting = document.getElementById("waiting");
const page = location.pathname;
const csrf = form.dataset.csrf;
let busy = false;

const find = (id) => document.getElementById(id);

/** Put the chat as the server has it in place of what stands here; marks that are set already stay. */
async function refresh() {
  const answer = await fetch(page, { headers: { Accept: "text/html" } });
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (!fresh.getElementById("chat")) return location.reload();
  const kept = fields();
  follow(fresh.getElementById("state").dataset.version); // sending has kept the rest of the form
  find("chat").replaceWith(fresh.getElementById("chat"));
  const message = find("message")?.value ?? "";
  waiting.innerHTML = fresh.getElementById("waiting").innerHTML;
  delete kept.choice;
  fill({ ...kept, message });
}

function trouble(text) {
  find("trouble").textContent = text;
  find("trouble").hidden = !text;
}

async function send() {
  if (busy) return;
  busy = true;
  trouble("");
  try {
    const told = await (await fetch(`${page}/message`, {
      method: "POST", body: new URLSearchParams(new FormData(form)), headers: { Accept: "application/json" },
    })).json();
    if (told.gone) location.assign(told.gone);
    else if (told.error) trouble(told.error);
    else await answers(form.elements.message.value);
  } catch {
    trouble(said.broken);
  }
  busy = false;
}

/** Show the message with its answers growing beneath it, then the chat as it is. */
async function answers(text) {
  const growing = waiting.content.cloneNode(true);
  growing.querySelector(".said .text").textContent = text.trim();
  const places = {};
  for (const place of growing.querySelectorAll("[data-letter]")) places[place.dataset.letter] = place.querySelector(".text");
  find("write").replaceWith(growing);
  live.textContent = said.writing;
  let error = "", ended = false;
  try {
    ended = await listen(`${page}/stream`, {}, csrf, (event) => {
      if (event.error) error = event.error;
      places[event.letter].append(event.text);
    });
  } catch {}
  await refresh();
  const failed = error || (ended ? "" : said.broken);
  if (failed) trouble(failed);
  live.textContent = failed ? "" : said.ready;
  changed();
  (find("choose") && !find("message") ? form.querySelector("[name=choice]") : find("message"))?.focus({ preventScroll: true });
  find("last")?.scrollIntoView({ block: "start" });
}

form.addEventListener("click", (event) => {
  if (!event.target.closest("#send")) return;
  event.preventDefault();
  send();
});

// Ctrl+Enter does what the page waits for: it sends the message or keeps the choice; it never finishes the chat.
document.addEventListener("keydown", (event) => {
  if (isComposing(event) || event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || formOf(event) !== form) return;
  event.preventDefault();
  event.stopPropagation();
  const send_ = find("send");
  if (send_) send();
  else if (find("choose")) form.requestSubmit(find("choose"));
}, true);
