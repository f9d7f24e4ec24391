// A client that openapi-ts makes from the gateway's own document: made, compiled, and run with the scene on stdin.
import { createClient } from "@hey-api/openapi-ts";
import { spawnSync } from "node:child_process";
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const input = readFileSync(0, "utf8");
const folder = mkdtempSync(join(tmpdir(), "generated-"));
try {
  const from = `${JSON.parse(input).url}/openapi.json`;
  await createClient({ input: from, output: join(folder, "client"), plugins: ["@hey-api/client-fetch"], logs: { level: "silent" } });
  copyFileSync(join(here, "generated.ts"), join(folder, "generated.ts"));
  const compilerOptions = {
    strict: true,
    noUncheckedIndexedAccess: true,
    skipLibCheck: true,
    target: "es2022",
    module: "commonjs",
    moduleResolution: "node10",
    lib: ["es2022", "dom", "dom.iterable"],
    types: [],
    outDir: "out",
  };
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["generated.ts"] }));
  run(createRequire(import.meta.url).resolve("typescript/lib/tsc.js"), "--project", folder);
  process.stdout.write(run(join(folder, "out", "generated.js")));
} finally {
  rmSync(folder, { recursive: true });
}

function run(...command) {
  const result = spawnSync(process.execPath, command, { input, encoding: "utf8" });
  if (result.status !== 0) throw new Error(result.stdout + result.stderr);
  return result.stdout;
}
