// A principle that is chosen brings its texts, in the language that the model reads; Ctrl+Enter asks. The form works
// without either.

const find = (id) => document.getElementById(id);
const form = find("try");
const parts = ["title", "definition", "negative"];

if (form) {
  const texts = JSON.parse(find("texts").textContent);
  const [select, language, send] = [find("principle"), find("language"), find("send")];
  const take = () => {
    const chosen = texts[language.value][select.value];
    if (chosen) for (const part of parts) find(part).value = chosen[part];
  };
  find("take").hidden = true;
  select.addEventListener("change", take);
  for (const part of parts) find(part).addEventListener("input", () => { select.value = ""; });
  language.addEventListener("change", () => {
    const { value } = select;
    const offered = Object.entries(texts[language.value]).map(([id, one]) => new Option(one.title, id));
    select.replaceChildren(select.options[0], ...offered);
    select.value = value in texts[language.value] ? value : "";
    take();
  });
  form.addEventListener("keydown", (event) => {
    if (event.isComposing || event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    if (!send.disabled) form.requestSubmit(send);
  });
  form.addEventListener("submit", () => {
    form.setAttribute("aria-busy", "true");
    setTimeout(() => { send.disabled = true; });
  });
  addEventListener("pageshow", () => {
    form.removeAttribute("aria-busy");
    send.disabled = false;
  });
  find("result")?.focus({ preventScroll: false });
}
