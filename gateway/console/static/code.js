// A request as lines to copy.

const quoted = (text) => `'${text.replaceAll("'", `'"'"'`)}'`;

export function asCurl(address, body, written) {
  return [
    `curl ${quoted(`${address}/v1/openai/chat/completions`)} \\`,
    '  -H "Content-Type: application/json" \\',
    '  -H "Authorization: Bearer $FAREBOX_KEY" \\',
    `  -d ${quoted(written(body, 2))}`,
  ].join("\n");
}

export function asPython(address, body, written) {
  const known = new Set(["model", "messages", "temperature", "top_p", "max_tokens", "stop", "presence_penalty", "frequency_penalty", "seed", "tools", "tool_choice", "response_format"]);
  const lines = [];
  const more = {};
  for (const [name, value] of Object.entries(body)) {
    if (known.has(name)) lines.push(`    ${name}=${literal(value, written)},`);
    else more[name] = value; // the SDK has no parameter of this name
  }
  if (Object.keys(more).length) lines.push(`    extra_body=${literal(more, written)},`);
  return [
    "import os",
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url="${address}/v1/openai", api_key=os.environ["FAREBOX_KEY"])`,
    "",
    "answer = client.chat.completions.create(",
    ...lines,
    ")",
    "print(answer.choices[0].message.content)",
    "print(answer.usage)",
  ].join("\n");
}

/** JSON as Python: only outside of texts do its words differ. */
function literal(value, written) {
  const words = { true: "True", false: "False", null: "None" };
  const text = written(value, 4).replace(/"(?:[^"\\]|\\.)*"|\b(?:true|false|null)\b/g, (found) => words[found] ?? found);
  return text.replaceAll("\n", "\n    ");
}
