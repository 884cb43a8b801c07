// What the package says of itself.

import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";

import * as ibfast from "../ibfast.js";

const root = new URL("../", import.meta.url);
const read = (name) => readFileSync(new URL(name, root), "utf8");

test("the types name what the module exports", () => {
  const typed = [...read("ibfast.d.ts").matchAll(/^export (?:class|function|const) (\w+)/gm)].map(([, name]) => name);
  assert.deepEqual(typed.sort(), Object.keys(ibfast).sort());
});

test("the files that are published are there, and nothing is needed beside them", () => {
  const { files, exports, dependencies } = JSON.parse(read("package.json"));
  for (const name of [...files, ...Object.values(exports["."])]) assert.ok(existsSync(new URL(name, root)), name);
  assert.equal(dependencies, undefined);
  const modules = readdirSync(new URL("src/", root), { recursive: true }).filter((name) => name.endsWith(".js"));
  assert.ok(modules.length > 10);
  for (const name of ["ibfast.js", ...modules.map((module) => `src/${module}`)])
    for (const [, from] of read(name).matchAll(/^(?:import|export|\}).* from "(.*)";$/gm))
      assert.match(from, /^\.{1,2}\/.*\.js$/, name);
});

test("without a WebSocket it is said what to do", async (t) => {
  const { WebSocket } = globalThis;
  delete globalThis.WebSocket;
  t.after(() => {
    globalThis.WebSocket = WebSocket;
  });
  await assert.rejects(ibfast.connect("ws://localhost"), /options\.WebSocket/);
});
