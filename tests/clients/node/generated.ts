// Compiled with the client that openapi-ts made from the gateway's document, with every check of the compiler on.
import { client } from "./client/client.gen";
import * as api from "./client/sdk.gen";
import type { ChatBodyFareboxDemo, LimitBody } from "./client/types.gen";

declare const process: { stdin: AsyncIterable<Uint8Array>; stdout: { write(text: string): void } };

async function main(): Promise<void> {
  let input = "";
  for await (const chunk of process.stdin) input += new TextDecoder().decode(chunk);
  const scene = JSON.parse(input);

  client.setConfig({ baseUrl: scene.url });
  const own = { auth: scene.key as string, throwOnError: true } as const;
  const admin = { auth: scene.admin_key as string, throwOnError: true } as const;
  const body: ChatBodyFareboxDemo = { model: scene.model, messages: [{ role: "user", content: scene.question }] };
  const limit: LimitBody = { kind: "prepaid", amount_usd: "5.00" };

  const cases = {
    async administration() {
      const account = (await api.postAdminAccounts({ ...admin, body: { name: "generated-node", limit } })).data;
      const terms = { models: [scene.model], requests_per_minute: 60 };
      const key = (await api.postAdminKeys({ ...admin, body: { account_id: account.id, name: "bot", terms } })).data;
      const changed = await api.putAdminKeysIdTerms({
        ...admin,
        path: { id: key.id },
        body: { limit: { kind: "day", amount_usd: "1.50" }, tokens_per_minute: 9000 },
      });
      const answer = await api.postV1ChatCompletions({ ...own, auth: key.secret, body });
      return { account, key, terms: changed.data.terms, text: answer.data.choices[0]!.message.content };
    },

    async chat() {
      const { data } = await api.postV1ChatCompletions({ ...own, body: { ...body, temperature: 0, logit_bias: { 5: 1 } } });
      return { text: data.choices[0]!.message.content, usage: data.usage };
    },

    async refused() {
      const { error } = await api.postV1ChatCompletions({ ...own, throwOnError: false, body: { ...body, top_p: 7 } });
      return error;
    },

    async responses() {
      const { data } = await api.postV1Responses({ ...own, body: { model: scene.model, input: scene.question } });
      return data.output.flatMap((item) => (item.type === "message" ? item.content.map((part) => part.text) : []))[0];
    },

    async messages() {
      const turn = { role: "user", content: scene.question } as const;
      const { data } = await api.postV1Messages({ ...own, body: { model: scene.model, max_tokens: 50, messages: [turn] } });
      return data.content.flatMap((block) => (block.type === "text" ? [block.text] : []))[0];
    },

    async listed() {
      return (await api.getV1Models(own)).data.data.map((model) => model.id);
    },
  };

  const results: Record<string, unknown> = {};
  for (const [name, run] of Object.entries(cases)) {
    try {
      results[name] = { returned: await run() };
    } catch (error) {
      results[name] = { raised: { classes: ["Error"], status: null, message: JSON.stringify(error) ?? String(error) } };
    }
  }
  process.stdout.write(JSON.stringify(results));
}

void main();
