// Calls of the server: the key goes with each; answers in JSON, or event by event.
let key = sessionStorage.getItem("key") || ""; // until the tab is closed
let askForKey = () => {};

export function keep(given) { key = given; sessionStorage.setItem("key", key); }
export function onRefusal(act) { askForKey = act; }

export async function call(method, path, body, options = {}) {
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  if (options.type) headers["content-type"] = options.type;
  else if (body !== undefined) { headers["content-type"] = "application/json"; body = JSON.stringify(body); }
  const answer = await fetch(path, { method, headers, body, signal: options.signal });
  if (answer.status === 401) {
    askForKey(key !== "");
    throw new DOMException("the key is asked for", "AbortError");
  }
  if (!answer.ok) {
    let reason = `${answer.status}`;
    try { reason = (await answer.json()).error.message; } catch { /* no JSON: the status must do */ }
    throw new Error(reason);
  }
  return answer;
}
export const json = async (...given) => (await call(...given)).json();

// What a stream of server-sent events holds, up to its end; an error in it is thrown.
export async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let more = await reader.read(); !more.done; more = await reader.read()) {
    const parts = (rest + more.value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new Error(event.error.message);
      yield event;
    }
  }
}
