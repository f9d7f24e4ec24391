// The playground: a conversation with one model. It lives in this page's memory and nowhere else.

import { element } from "./console.js";
import { asCurl, asPython } from "./code.js";
import { events } from "./events.js";

const root = document.querySelector("[data-playground]");
const { model, address, chat, api, csrf, session } = root.dataset;
const find = (name) => root.querySelector(`[data-${name}]`);
const turns = find("turns");
const composer = find("composer");
const message = composer.elements.message;
const messages = []; // as the API has them, without the system prompt
let running = null; // the AbortController of the answer that streams

composer.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = message.value.trim();
  if (running || !text) return;
  message.value = "";
  messages.push({ role: "user", content: text });
  show("user", text);
  answer();
});
message.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    composer.requestSubmit();
  }
});
find("stop").addEventListener("click", () => running?.abort());
find("clear").addEventListener("click", () => {
  running?.abort();
  messages.length = 0;
  turns.replaceChildren(empty);
  message.focus();
});
const empty = find("empty");
for (const slider of root.querySelectorAll("[data-slider]")) {
  const number = root.querySelector(`[data-parameter="${slider.dataset.slider}"]`);
  slider.addEventListener("input", () => (number.value = slider.value));
  number.addEventListener("input", () => (slider.value = number.value || slider.defaultValue));
}
find("format").addEventListener("change", (event) => {
  find("schema-field").hidden = event.target.value !== "json_schema";
});

/** The request as the controls have it now. Throws an Error that says which field isn't JSON. */
function request(pending = []) {
  const body = { model, messages: [] };
  const system = find("system").value.trim();
  if (system) body.messages.push({ role: "system", content: system });
  body.messages.push(...messages, ...pending);
  for (const control of root.querySelectorAll("[data-parameter]")) {
    const value = control.value.trim();
    if (value === "" || control.validity.badInput) continue;
    const { parameter, kind } = control.dataset;
    if (kind === "boolean") body[parameter] = value === "true";
    else if (kind === "strings") body[parameter] = value.split("\n").filter(Boolean);
    // Large integers are written as they are: a number of JavaScript's would lose their last digits.
    else body[parameter] = kind === "integer" && !Number.isSafeInteger(Number(value)) ? new Whole(value) : Number(value);
  }
  const format = find("format").value;
  if (format === "json_object") body.response_format = { type: "json_object" };
  if (format === "json_schema") {
    const schema = parsed("JSON Schema", find("json-schema").value);
    body.response_format = { type: "json_schema", json_schema: { name: "answer", schema } };
  }
  const tools = find("tools")?.value.trim();
  if (tools) {
    body.tools = parsed("Functions", tools);
    if (find("tool-choice").value) body.tool_choice = find("tool-choice").value;
  }
  return body;
}

const mark = `whole-${Math.random().toString(36).slice(2)}:`; // nobody writes that into a message

class Whole {
  constructor(digits) {
    this.digits = digits;
  }
  toJSON() {
    return mark + this.digits;
  }
}

/** JSON with whole numbers of any length. */
function written(body, indent) {
  return JSON.stringify(body, null, indent).replace(new RegExp(`"${mark}(-?[0-9]+)"`, "g"), "$1");
}

function parsed(name, text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`${name}: ${error.message}`);
  }
}

function show(role, text) {
  empty.remove();
  const said = element("p", {}, text);
  const turn = element("div", { className: `turn ${role}` }, said);
  turns.append(turn);
  follow();
  return { turn, said };
}

function follow() {
  turns.scrollTop = turns.scrollHeight;
}

/** Where to send it, and with what: the session's own route, or the API with the key that was typed in. */
function target() {
  const key = find("key")?.value.trim();
  if (key) return [api, { authorization: `Bearer ${key}` }];
  if (session) return [chat, { "x-csrf-token": csrf }];
  throw new Error("Put in your API key first, or sign in.");
}

async function answer() {
  const { turn, said } = show("assistant live", "");
  const made = { role: "assistant", content: "" };
  const calls = [];
  const started = performance.now();
  let first = 0;
  let usage = null;
  let reason = "";
  running = new AbortController();
  busy(true);
  try {
    const [url, headers] = target();
    const body = { ...request(), stream: true, stream_options: { include_usage: true } };
    const response = await fetch(url, {
      method: "POST",
      headers: { "content-type": "application/json", accept: "text/event-stream", ...headers },
      body: written(body),
      credentials: url === chat ? "same-origin" : "omit",
      signal: running.signal,
    });
    if (!response.ok) throw new Error((await response.json().catch(() => null))?.error?.message ?? `Status ${response.status}`);
    for await (const chunk of events(response.body)) {
      if (chunk.error) throw new Error(chunk.error.message);
      usage = chunk.usage ?? usage;
      const choice = chunk.choices?.[0];
      if (!choice) continue;
      reason = choice.finish_reason ?? reason;
      const { content, reasoning_content: thought, reasoning, tool_calls: called } = choice.delta;
      if (!first && (content || thought || reasoning || called)) first = performance.now();
      if (thought || reasoning) think(turn, thought ?? reasoning);
      if (content) said.textContent = made.content += content;
      for (const one of called ?? []) collect(calls, one);
      follow();
    }
  } catch (error) {
    if (error.name === "AbortError") reason = "stopped: what was generated until then is charged";
    else turn.append(element("p", { className: "fault", role: "alert" }, error.message));
  } finally {
    running = null;
    busy(false);
    turn.classList.remove("live");
  }
  if (calls.length) {
    made.tool_calls = calls;
    showCalls(turn, calls);
  }
  if (made.content || calls.length) messages.push(made);
  else if (!usage) message.value ||= messages.pop()?.content ?? ""; // it wasn't answered: to be sent again
  turn.append(meta(usage, first - started, performance.now() - first, reason));
  follow();
}

function busy(yes) {
  find("send").disabled = yes;
  find("stop").hidden = !yes;
}

function think(turn, text) {
  const place = turn.querySelector(".thought") ?? element("p", { className: "thought" });
  turn.prepend(place);
  place.textContent += text;
}

/** The pieces of a tool call, put together. */
function collect(calls, piece) {
  const call = (calls[piece.index] ??= { id: "", type: "function", function: { name: "", arguments: "" } });
  if (piece.id) call.id = piece.id;
  if (piece.function?.name) call.function.name = piece.function.name;
  call.function.arguments += piece.function?.arguments ?? "";
}

/** Each call with a place for its result; all of them are sent together. */
function showCalls(turn, calls) {
  const places = calls.map((call) => {
    const result = element("textarea", { rows: 1, placeholder: "Its result", ariaLabel: `Result of ${call.function.name}` });
    turn.append(element("div", { className: "call" }, element("code", {}, `${call.function.name}(${call.function.arguments})`), result));
    return result;
  });
  const send = element("button", { type: "button" }, calls.length > 1 ? "Send the results" : "Send the result");
  send.addEventListener("click", () => {
    if (running) return;
    calls.forEach((call, index) => messages.push({ role: "tool", tool_call_id: call.id, content: places[index].value }));
    places.forEach((place) => (place.readOnly = true));
    send.remove();
    answer();
  });
  turn.append(send);
}

/** Tokens, speed, time to the first token, and cost, as the server counted them. */
function meta(usage, firstMs, restMs, reason) {
  const line = element("div", { className: "meta" });
  const add = (text, strong = "", name = "") => {
    const part = element("span", {}, strong ? element("b", {}, strong) : "", text);
    if (name) part.dataset.said = name;
    line.append(part);
  };
  if (usage) {
    const cached = usage.prompt_tokens_details?.cached_tokens;
    add(` in${cached ? ` (${cached} cached)` : ""}`, String(usage.prompt_tokens), "prompt");
    add(" out", String(usage.completion_tokens), "completion");
    // Of a short answer all tokens may come at once: then the time to the first one counts too.
    const speed = restMs > 200 ? (usage.completion_tokens - 1) / restMs : usage.completion_tokens / (firstMs + restMs);
    if (firstMs > 0) add(" tokens/s", (speed * 1000).toFixed(1), "speed");
    if (firstMs > 0) add(" to the first token", `${Math.round(firstMs)} ms`, "first");
    if (usage.estimated_cost !== undefined) add("", `$${exact(usage.estimated_cost)}`, "cost");
  }
  if (reason && reason !== "stop") add(reason.replaceAll("_", " "));
  return line;
}

/** US dollars to the picodollar, without an exponent. */
function exact(dollars) {
  return dollars.toFixed(12).replace(/0+$/, "").replace(/\.$/, ".00").replace(/^(\d+\.\d)$/, "$10");
}

const dialog = find("code-dialog");
const languages = { curl: asCurl, python: asPython };

function showCode(language) {
  const pending = message.value.trim() ? [{ role: "user", content: message.value.trim() }] : [];
  try {
    const body = request(messages.length || pending.length ? pending : [{ role: "user", content: "Hello!" }]);
    find("code-text").textContent = languages[language](address, body, written);
  } catch (error) {
    find("code-text").textContent = error.message;
  }
  for (const button of dialog.querySelectorAll("[data-show]")) button.ariaPressed = String(button.dataset.show === language);
}

find("code").addEventListener("click", () => {
  showCode("curl");
  dialog.showModal();
});
for (const button of dialog.querySelectorAll("[data-show]")) button.addEventListener("click", () => showCode(button.dataset.show));
find("close").addEventListener("click", () => dialog.close());
