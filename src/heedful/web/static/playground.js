// Both answers as they are written, side by side; the vote is a form's post like any other.

import { listen } from "./stream.js";

const find = (id) => document.getElementById(id);
const ask = find("ask"), vote = find("vote");
const said = JSON.parse(find("stream-words").textContent);

function trouble(text) {
  find("trouble").textContent = text;
  find("trouble").hidden = !text;
}

function renew() {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  ask.elements.number.value = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The pair as it is copied. */
function pair() {
  const value = (name) => vote.elements[name].value;
  return JSON.stringify({ prompt: value("prompt"), a: value("text-a"), b: value("text-b") }, null, 2);
}

async function both() {
  if (!ask.reportValidity() || find("send").disabled) return;
  find("send").disabled = true;
  renew();
  trouble("");
  const fields = Object.fromEntries(new FormData(ask));
  const places = {}, texts = { a: "", b: "" };
  for (const place of vote.querySelectorAll("[data-letter]")) {
    const { letter } = place.dataset;
    places[letter] = place;
    place.replaceChildren();
    place.classList.add("streaming");
    find(`title-${letter}`).querySelector("bdi")?.remove();
    vote.querySelector(`[data-error=${letter}]`).textContent = "";
  }
  vote.hidden = false;
  find("ballot").hidden = true;
  find("result")?.remove();
  find("live").textContent = said.writing;
  let failed = false, ended = false;
  try {
    ended = await listen("/playground/stream", fields, ask.dataset.csrf, (event) => {
      places[event.letter].append(event.text);
      texts[event.letter] += event.text;
      if (event.html) {
        places[event.letter].innerHTML = event.html; // sanitized where it was made
        places[event.letter].classList.remove("streaming");
      }
      if (event.error) { failed = true; vote.querySelector(`[data-error=${event.letter}]`).textContent = event.error; }
    });
  } catch {}
  if (!ended) trouble(said.broken);
  for (const name of ["number", "prompt", "one", "other", "temperature", "tokens"]) vote.elements[name].value = fields[name];
  for (const letter of "ab") vote.elements[`text-${letter}`].value = texts[letter];
  find("pair").value = pair();
  if (ended) {
    find("ballot").hidden = false;
    for (const button of find("ballot").querySelectorAll("button:not(.plain)")) button.hidden = failed;
    find("ballot").querySelector("button:not([hidden])").focus({ preventScroll: true });
  }
  find("live").textContent = ended && !failed ? said.ready : "";
  find("send").disabled = false;
}

if (ask) {
  ask.addEventListener("submit", (event) => { event.preventDefault(); both(); });
  ask.addEventListener("keydown", (event) => {
    if (event.isComposing || event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    both();
  });
  find("copy").hidden = false;
  find("copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(find("pair").value);
    } catch { // without HTTPS there is no such clipboard
      find("pair").closest("details").open = true;
      find("pair").select();
      document.execCommand("copy");
    }
    find("copied").textContent = said.copied;
  });
}
