// Requests to the server. Errors are of the class Problem, with the server's own words.

export class Problem extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

// The JSON of a GET.
export async function get(path, key) {
  const response = await send(path, { headers: headersOf(key) });
  return response.json();
}

// The answer to a rerank request. `on` has functions for the events on the way: progress({done, total}), text({text}).
export async function rerank(body, { key, signal, on }) {
  const response = await send("v1/rerank", {
    method: "POST",
    headers: { ...headersOf(key), "Content-Type": "application/json", Accept: "text/event-stream" },
    body: JSON.stringify(body),
    signal,
  });
  for await (const { name, data } of events(response.body)) {
    if (name === "result") return data;
    if (name === "error") throw new Problem(data.message, data.error?.code);
    on[name]?.(data);
  }
  throw new Problem("The server ended the answer before its end: its log may say why.");
}

function headersOf(key) {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function send(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The server does not answer: is dearlite serve still running?");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  throw new Problem(body?.message ?? `The server answered with status ${response.status}.`, response.status);
}

// Yields {name, data} for each server-sent event.
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read().catch((error) => {
      if (error.name === "AbortError") throw error;
      throw new Problem("The connection to the server broke.");
    });
    if (done) return;
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const fields = Object.fromEntries(part.split("\n").map((line) => line.split(/: (.*)/s, 2)));
      if (fields.event) yield { name: fields.event, data: JSON.parse(fields.data) };
    }
  }
}
