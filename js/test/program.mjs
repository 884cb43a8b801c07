// Runs the program in Node: `node program.mjs PAGE URL` posts everything that it tells to PAGE.

import { program } from "./program.js";

const [page, url] = process.argv.slice(2);
let posting = Promise.resolve();
await program(url, undefined, (said) => {
  posting = posting.then(() => fetch(page, { method: "POST", body: JSON.stringify(said) }));
});
await posting;
