// The page of a griffin server: sessions, a book being read, questions. No library, no other host.
import { call, events, json, keep, onRefusal } from "./calls.js";
import { draw, size } from "./plot.js";

const $ = (id) => document.getElementById(id);
const lines = new Map(); // what was seen of each session: points of the plot
const chat = [];
let current = "";
let busy = null; // an AbortController while a file is read or an answer comes

const place = (rest = "") => `/v1/sessions/${encodeURIComponent(current)}${rest}`;

function tell(error) {
  if (error && error.name === "AbortError") return;
  $("error").textContent = error ? error.message : "";
}
function on(id, event, act) {
  $(id).addEventListener(event, async (happened) => {
    tell(null);
    try { await act(happened); } catch (error) { tell(error); }
  });
}
// One thing at a time: what changes a session can't begin during a reading or an answer.
async function alone(act) {
  if (busy) throw new Error("Something is still running: wait for its end, or stop it with Escape");
  busy = new AbortController();
  try { await act(busy.signal); } finally { busy = null; }
}

// ---- the session

const label = (session) => `${session.id} · ${session.tokens.toLocaleString("en")} tokens`;

function show(session) {
  for (const option of $("sessions").selectedOptions) option.textContent = label(session);
  $("tokens").textContent = session.tokens.toLocaleString("en");
  $("bytes").textContent = size(session.bytes);
  $("cache").textContent = size(session.growing_cache_bytes);
  const before = (lines.get(session.id) || [{ tokens: 0, mine: session.bytes, theirs: 0 }])
    .filter((point) => point.tokens < session.tokens || point.tokens === 0);
  before.push({ tokens: session.tokens, mine: session.bytes, theirs: session.growing_cache_bytes });
  lines.set(session.id, before);
  plot();
  if (session.marks) showMarks(session.marks);
}
function plot() {
  if (lines.has(current)) draw($("plot"), lines.get(current));
}
function showMarks(marks) {
  const buttons = marks.map((mark) => {
    const button = document.createElement("button");
    button.textContent = mark.toLocaleString("en");
    button.title = `Back to where ${button.textContent} tokens were read`;
    button.dataset.tokens = mark;
    return button;
  });
  $("marks").replaceChildren(buttons.length ? "Back to" : "Nothing to go back to yet", ...buttons);
}
async function sessions(chosen = current) {
  const list = (await json("GET", "/v1/sessions")).data;
  if (!list.length) list.push(await json("POST", "/v1/sessions", { id: "session-1" }));
  $("sessions").replaceChildren(...list.map((each) => new Option(label(each), each.id)));
  const mine = list.find((each) => each.id === chosen) || list[0];
  $("sessions").value = current = mine.id;
  show(mine);
}
// A name that is not taken yet: shorter than those that the server gives.
function name() {
  const taken = new Set(Array.from($("sessions").options, (option) => option.value));
  let number = taken.size + 1;
  while (taken.has(`session-${number}`)) number += 1;
  return `session-${number}`;
}
const fresh = async () => sessions((await json("POST", "/v1/sessions", { id: name() })).id);
const fork = async () => sessions((await json("POST", place("/fork"), { id: name() })).id);
async function rewind(tokens) {
  show(await json("POST", place("/rewind"), { tokens }));
  await sessions();
  say("aside", `back at ${tokens.toLocaleString("en")} tokens`);
}
async function save() {
  const file = await (await call("GET", place("/state"))).blob(), link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = `${current}.state`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
async function load(file) {
  const name = `loaded-${Date.now().toString(36)}`;
  await call("PUT", `/v1/sessions/${name}/state`, file, { type: "application/octet-stream" });
  await sessions(name);
}
// The server ends a reading whose client has left after the part that it is in.
async function stopped(tokens) {
  for (let tries = 0; tries < 100; tries += 1) {
    if ((await json("GET", place())).tokens >= tokens) return;
    await new Promise((done) => setTimeout(done, 100));
  }
}
async function read(file, signal) {
  $("reading").hidden = false;
  $("reading-name").textContent = file.name;
  const bar = $("progress"), begun = performance.now();
  bar.removeAttribute("value");
  const bytesAToken = 3; // a guess, for the bar alone; the tokens themselves are counted
  const inFile = lines.get(current).at(-1).mine;
  let before = null, now = null, head = 0;
  try {
    const answer = await call("POST", place("/append?stream=true"), file, { type: "text/plain", signal });
    for await (const event of events(answer)) {
      now = event.tokens;
      if (before === null) [before, head] = [now, inFile - event.bytes]; // a file has a head besides
      const seconds = (performance.now() - begun) / 1000;
      $("speed").textContent = Math.round((now - before) / seconds).toLocaleString("en");
      bar.max = Math.max(file.size / bytesAToken, (now - before) * 1.02);
      bar.value = now - before;
      show(event.marks ? event : { ...event, bytes: event.bytes + head });
    }
  } finally {
    $("reading").hidden = true;
    if (signal.aborted) await stopped(now);
    await sessions();
  }
  say("aside", `${file.name} was read`);
}

// ---- the conversation

function say(kind, text) {
  const item = document.createElement("li");
  item.className = kind;
  item.textContent = text;
  $("log").append(item);
  $("log").scrollTop = $("log").scrollHeight;
  return item;
}
async function ask(question, signal) {
  const toSession = $("to-session").checked, begun = performance.now();
  say("you", question);
  const item = say("it", "…");
  const options = { stream: true, stream_options: { include_usage: true } };
  const messages = [...chat, { role: "user", content: question }];
  const body = toSession ? { input: question, temperature: 0, ...options }
    : { messages, temperature: 0.7, ...options };
  let text = "", usage = null;
  try {
    const answer = await call("POST", toSession ? place("/ask") : "/v1/chat/completions", body, { signal });
    for await (const event of events(answer)) {
      usage = event.usage || usage;
      text += (event.choices[0] && event.choices[0].delta.content) || "";
      item.textContent = text.trim() || "…";
      $("log").scrollTop = $("log").scrollHeight;
    }
  } finally {
    item.textContent = text.trim() || "(nothing)";
    if (!toSession && text) chat.push(messages.pop(), { role: "assistant", content: text });
  }
  const note = document.createElement("small"), seconds = (performance.now() - begun) / 1000;
  note.textContent = `${usage.completion_tokens} tokens in ${seconds.toFixed(2)} s`;
  item.append(note);
}

// ---- what can be done

async function begin() {
  $("model").textContent = (await json("GET", "/v1/models")).data[0].id;
  $("key-dialog").close();
  await sessions();
  $("question").focus();
}
onRefusal((given) => {
  $("key-error").textContent = given ? "That key is not one of this server's" : "";
  if (!$("key-dialog").open) $("key-dialog").showModal();
  $("key").focus();
});
on("key-form", "submit", async (event) => {
  event.preventDefault();
  keep($("key").value.trim());
  await begin();
});
on("sessions", "change", () => alone(() => sessions($("sessions").value)));
on("new", "click", () => alone(fresh));
on("fork", "click", () => alone(fork));
on("save", "click", save);
on("delete", "click", () => alone(async () => { await call("DELETE", place()); lines.delete(current); await sessions(""); }));
on("marks", "click", (event) => {
  if (event.target.dataset.tokens) return alone(() => rewind(Number(event.target.dataset.tokens)));
});
for (const [id, act] of [["load", load], ["file", read]]) {
  on(id, "change", async () => {
    const file = $(id).files[0];
    if (file) await alone((signal) => act(file, signal));
    $(id).value = "";
  });
}
on("note-form", "submit", async (event) => {
  event.preventDefault();
  const text = $("note").value.trim();
  if (!text) return;
  await alone(async () => {
    await json("POST", place("/append"), { text, note: true });
    $("note").value = "";
    await sessions();
    say("aside", `planted: ${text}`);
  });
});
on("ask-form", "submit", async (event) => {
  event.preventDefault();
  const question = $("question").value.trim();
  if (!question || busy) return;
  $("question").value = "";
  await alone((signal) => ask(question, signal));
});
on("question", "keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); $("ask-form").requestSubmit(); }
});
on("clear", "click", () => { chat.length = 0; $("log").replaceChildren(); });
on("stop", "click", () => { if (busy) busy.abort(); });
on("keys", "click", () => $("help").showModal());

for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(name, async (event) => {
    event.preventDefault();
    $("over").hidden = !(name === "dragenter" || name === "dragover");
    const file = name === "drop" && event.dataTransfer.files[0];
    try { if (file) await alone((signal) => read(file, signal)); } catch (error) { tell(error); }
  });
}
const presses = {
  "/": () => $("question").focus(), "?": () => $("help").showModal(), m: () => $("note").focus(),
  b: () => $("file").click(), l: () => $("load").click(), n: () => $("new").click(), f: () => $("fork").click(),
  s: () => $("save").click(), t: () => $($("to-session").checked ? "to-chat" : "to-session").click(),
  r: () => { const marks = $("marks").querySelectorAll("button"); if (marks.length) marks[marks.length - 1].click(); },
};
document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
  const field = event.target.matches("input:not([type=radio], [type=file]), textarea, select");
  if (event.key === "Escape") {
    if (busy) busy.abort();
    else event.target.blur();
  } else if (!field && !event.ctrlKey && !event.metaKey && !event.altKey && presses[event.key]) {
    event.preventDefault();
    presses[event.key]();
  }
});
new ResizeObserver(plot).observe($("plot"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", plot);
begin().catch(tell);
