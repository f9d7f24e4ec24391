// The deepinfra package, on the native route. Its errors hold no status: it writes the answer to the console.
import deepinfra from "deepinfra";
import { report, scene } from "./reporting.mjs";

const once = { maxRetries: 0, initialBackoff: 1, subsequentBackoff: 1 };

function generator(name = scene.model, key = scene.key, settings = once) {
  return new deepinfra.TextGeneration(`${scene.url}/v1/inference/${name}`, key, settings);
}

/** What the client wrote to the console while it failed: the answer's body and its status. */
async function refused(model, more = {}) {
  const statuses = [];
  const client = model.client.axiosClient;
  client.interceptors.response.use(undefined, (error) => {
    statuses.push(error.response?.status);
    return Promise.reject(error);
  });
  const written = {};
  const original = console.error;
  console.error = (label, value) => (written[label] = value);
  try {
    const answer = await model.generate(request(more));
    throw new TypeError(`it should have failed: ${JSON.stringify(answer)}`);
  } catch (error) {
    if (error instanceof TypeError) throw error;
    return { message: error.message, body: written["Response data:"], status: written["Status:"], statuses };
  } finally {
    console.error = original;
  }
}

const request = (more = {}) => ({ input: scene.native_input, temperature: 0, max_new_tokens: 10, ...more });

await report({
  text: () => generator().generate(request()),
  stream: () => generator().generate(request({ stream: true })),
  responses: () => generator().generate(request({ num_responses: 2 })),
  options: () => generator().generate(request({ stop: ["never"], response_format: { type: "text" } })),
  wrongKey: () => refused(generator(scene.model, scene.wrong_key)),
  badParameter: () => refused(generator(), { top_p: 7 }),
  noMoney: () => refused(generator(scene.model, scene.poor_key), { max_new_tokens: 10000 }),
  noModel: () => refused(generator(scene.wrong_model)),
  retried: () => refused(generator(scene.model, scene.key, { ...once, maxRetries: 5 }), { top_p: 7 }),
});
