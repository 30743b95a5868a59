// A principle that is chosen brings its texts; Ctrl+Enter asks. The form works without either.

const find = (id) => document.getElementById(id);
const form = find("try");

if (form) {
  const texts = JSON.parse(find("texts").textContent);
  find("take").hidden = true;
  find("principle").addEventListener("change", () => {
    const chosen = texts[find("principle").value];
    for (const part of ["title", "definition", "negative"]) find(part).value = chosen ? chosen[part] : "";
  });
  form.addEventListener("keydown", (event) => {
    if (event.isComposing || event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    form.requestSubmit(find("send"));
  });
  form.addEventListener("submit", () => form.setAttribute("aria-busy", "true"));
  find("result")?.focus({ preventScroll: false });
}
