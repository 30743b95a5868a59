// The server says that a judgement is in: the copy of it that this browser kept may go.

const copy = document.querySelector("meta[name=taken]").content;
try { localStorage.removeItem(copy); } catch {}
const address = new URL(location.href);
address.searchParams.delete("of"); // looked at again, this page says nothing of copies made since
history.replaceState(history.state, "", address);
