// The openai package.
import OpenAI, { toFile } from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import { report, scene } from "./reporting.mjs";

const client = (apiKey = scene.key) => new OpenAI({ baseURL: `${scene.url}/v1/openai`, apiKey, maxRetries: 0 });
const user = (content) => ({ role: "user", content });
const request = (question, more = {}) => ({
  model: scene.model,
  messages: [user(question)],
  temperature: 0,
  ...more,
});
const ask = (question, more, key) => client(key).chat.completions.create(request(question, more));

async function joined(more) {
  const chunks = [];
  for await (const chunk of await ask(scene.question, { stream: true, ...more })) chunks.push(chunk);
  return {
    pieces: chunks.map((chunk) => chunk.choices[0]?.delta.content).filter(Boolean),
    usages: chunks.map((chunk) => chunk.usage).filter(Boolean),
    lastChoices: chunks.at(-1).choices.length,
  };
}

await report({
  async chat() {
    const answer = await ask(scene.question);
    return { text: answer.choices[0].message.content, usage: answer.usage, requestId: answer._request_id };
  },

  stream: () => joined({}),

  streamWithUsage: () => joined({ stream_options: { include_usage: true } }),

  async streamHelper() {
    const stream = client().chat.completions.stream(request(scene.question));
    const completion = await stream.finalChatCompletion();
    return completion.choices[0].message.content;
  },

  async batch() {
    const api = client();
    const line = (number) => ({
      custom_id: `request-${number}`,
      method: "POST",
      url: "/v1/chat/completions",
      body: request(scene.question),
    });
    const lines = [1, 2, 3].map((number) => JSON.stringify(line(number))).join("\n");
    const file = await api.files.create({ file: await toFile(Buffer.from(lines), "in.jsonl"), purpose: "batch" });
    let batch = await api.batches.create({
      input_file_id: file.id,
      endpoint: "/v1/chat/completions",
      completion_window: "24h",
    });
    while (!["completed", "failed", "expired", "cancelled"].includes(batch.status)) {
      await new Promise((resolve) => setTimeout(resolve, 100));
      batch = await api.batches.retrieve(batch.id);
    }
    const content = await (await api.files.content(batch.output_file_id)).text();
    const results = content.trim().split("\n").map((one) => JSON.parse(one));
    return {
      status: batch.status,
      counts: batch.request_counts,
      ids: results.map((one) => one.custom_id).sort(),
      texts: results.map((one) => one.response.body.choices[0].message.content),
    };
  },

  async conversation() {
    const first = await ask(scene.name);
    const messages = [user(scene.name), first.choices[0].message, user(scene.who)];
    const second = await ask("", { messages });
    return second.choices[0].message.content;
  },

  async tool() {
    const tools = [scene.weather_tool];
    const first = await ask(scene.weather_question, { tools });
    const { message, finish_reason } = first.choices[0];
    const [call] = message.tool_calls;
    const result = { role: "tool", tool_call_id: call.id, content: scene.weather_result };
    const second = await ask("", { tools, messages: [user(scene.weather_question), message, result] });
    const { name, arguments: sent } = call.function;
    return { name, arguments: sent, finish_reason, text: second.choices[0].message.content };
  },

  async streamedTool() {
    const runner = client().chat.completions.stream(request(scene.weather_question, { tools: [scene.weather_tool] }));
    const { message, finish_reason } = (await runner.finalChatCompletion()).choices[0];
    const { name, arguments: sent } = message.tool_calls[0].function;
    return { name, arguments: sent, finish_reason };
  },

  async toolRunner() {
    const parameters = { ...scene.weather_tool.function.parameters };
    const tool = {
      type: "function",
      function: { ...scene.weather_tool.function, parameters, parse: JSON.parse, function: () => scene.weather_result },
    };
    return client().chat.completions.runTools(request(scene.weather_question, { tools: [tool] })).finalContent();
  },

  async structured() {
    const person = zodResponseFormat(z.object({ name: z.string(), age: z.number() }), "person");
    const answer = await client().chat.completions.parse(request(scene.person_question, { response_format: person }));
    return answer.choices[0].message.parsed;
  },

  async models() {
    const names = [];
    for await (const model of client().models.list()) names.push(model.id);
    return [names, (await client().models.retrieve(scene.model)).id];
  },

  brokenStream: () => joined({ messages: [user(scene.broken_question)] }),
  wrongKey: () => ask(scene.question, {}, scene.wrong_key),
  badParameter: () => ask(scene.question, { top_p: 7 }),
  noMoney: () => ask(scene.question, {}, scene.poor_key),
  noModel: () => ask(scene.question, { model: scene.wrong_model }),
});
