// @ai-sdk/deepinfra with the ai package.
import { createDeepInfra } from "@ai-sdk/deepinfra";
import { generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { report, scene } from "./reporting.mjs";

const model = (name = scene.model, apiKey = scene.key) => createDeepInfra({ baseURL: `${scene.url}/v1`, apiKey })(name);
const ask = (more = {}) =>
  generateText({ model: model(), prompt: scene.question, temperature: 0, maxRetries: 0, ...more });
const weather = (more) => ({
  prompt: scene.weather_question,
  stopWhen: stepCountIs(2),
  tools: {
    get_weather: tool({
      description: scene.weather_tool.function.description,
      inputSchema: z.object({ city: z.string() }),
      execute: () => JSON.parse(scene.weather_result),
    }),
  },
  ...more,
});
const calls = (steps) => steps.flatMap((step) => step.toolCalls).map((call) => [call.toolName, call.input]);

await report({
  async chat() {
    const { text, usage, response } = await ask();
    return { text, counted: usage, usage: response.body.usage };
  },

  async stream() {
    const result = streamText({ model: model(), prompt: scene.question, temperature: 0, maxRetries: 0 });
    const pieces = [];
    for await (const piece of result.textStream) pieces.push(piece);
    return { pieces, counted: await result.usage, finishReason: await result.finishReason };
  },

  async conversation() {
    const first = await ask({ prompt: scene.name });
    const messages = [
      { role: "user", content: scene.name },
      ...first.response.messages,
      { role: "user", content: scene.who },
    ];
    return (await ask({ prompt: undefined, messages })).text;
  },

  async tool() {
    const { text, steps } = await ask(weather());
    return { calls: calls(steps), text };
  },

  async streamedTool() {
    const result = streamText({ model: model(), temperature: 0, maxRetries: 0, ...weather() });
    return { text: await result.text, calls: calls(await result.steps) };
  },

  async structured() {
    const schema = z.object({ name: z.string(), age: z.number() });
    return (await generateObject({ model: model(), prompt: scene.person_question, schema, maxRetries: 0 })).object;
  },

  wrongKey: () => ask({ model: model(scene.model, scene.wrong_key) }),
  badParameter: () => ask({ topP: 7 }),
  noMoney: () => ask({ model: model(scene.model, scene.poor_key) }),
  noModel: () => ask({ model: model(scene.wrong_model) }),
});
