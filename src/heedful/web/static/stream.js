// Server-sent events that answer a form's post.

/** Calls `heard` with each event; resolves to whether the stream came to its own end. */
export async function listen(address, fields, csrf, heard) {
  const answer = await fetch(address, {
    method: "POST", body: new URLSearchParams(fields), headers: { "X-CSRF-Token": csrf, Accept: "text/event-stream" },
  });
  if (!answer.ok) return false;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return false;
    rest += value;
    const lines = rest.split("\n\n");
    rest = lines.pop();
    for (const line of lines) {
      const event = JSON.parse(line.replace(/^data: /, ""));
      if (event.end) return true;
      heard(event);
    }
  }
}
