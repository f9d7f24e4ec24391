// What the scripts beside this file share: the scene, and the report of their cases on stdout.
import { readFileSync, writeSync } from "node:fs";

export const scene = JSON.parse(readFileSync(0, "utf8"));

/** Run the cases that are asked for, and write a JSON object with what each returned or raised. */
export async function report(cases) {
  const results = {};
  for (const [name, run] of Object.entries(cases)) {
    if (scene.cases.length === 0 || scene.cases.includes(name)) results[name] = await result(run);
  }
  writeSync(1, JSON.stringify(results));
}

async function result(run) {
  try {
    return { returned: await run() };
  } catch (error) {
    console.error(error);
    const status = error.status ?? error.statusCode ?? error.response?.status ?? null;
    return { raised: { classes: classes(error), status, message: error.message } };
  }
}

function classes(error) {
  const names = [];
  for (let kind = error.constructor; kind?.name; kind = Object.getPrototypeOf(kind)) names.push(kind.name);
  return names;
}
