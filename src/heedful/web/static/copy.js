// A button beside a link or token that is shown once: it copies it.

for (const button of document.querySelectorAll("[data-copy]")) {
  const field = document.getElementById(button.dataset.copy);
  field.select();
  if (!navigator.clipboard) continue; // only over HTTPS or on this machine; the field is selected all the same
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(field.value);
    button.textContent = button.dataset.copied;
  });
}
