// Texts that may hurt stay shut until they are asked for: once for as long as this window is open, and Enter does it.

const ASKED = "heedful texts shown";
const hurtful = document.getElementById("hurtful");

if (sessionStorage.getItem(ASKED)) hurtful.open = true;
if (!hurtful.open) hurtful.querySelector("summary").focus({ preventScroll: true });
hurtful.addEventListener("toggle", () => {
  if (hurtful.open) sessionStorage.setItem(ASKED, "1");
  else sessionStorage.removeItem(ASKED);
});
