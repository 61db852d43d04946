// Walks through the example and says what happens at each step; ends with an error if something else does.
//
//   cargo build --release && node examples/mini-program/demo.mjs
//
// It starts a fake WeChat, two versions of a service, and the gateway, all on loopback addresses and ports
// that are free, and stops them at the end.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

import { startBackend } from "./backend/server.mjs";
import { SECRET, startWechat } from "./wechat/server.mjs";

const require = createRequire(import.meta.url);
const { createClient, Refused } = require("./miniprogram/request.js");
const { wxInNode } = require("./miniprogram/wx-in-node.js");

const here = fileURLToPath(new URL(".", import.meta.url));
const program = process.env.SLUICE
  || ["release", "debug"].map((kind) => join(here, "../../target", kind, "sluice")).find(existsSync);
assert.ok(program, "build the gateway first: cargo build --release");

// === The world ===

const wechat = await startWechat();
const [v1, v2] = [await startBackend("v1"), await startBackend("v2")];
const ports = [await freePort(), await freePort()];
const folder = mkdtempSync(join(tmpdir(), "mini-program-"));
const table = join(folder, "routes.yaml");
writeFileSync(table, readFileSync(join(here, "routes.yaml")));
const gateway = spawn(program, ["run", "--config", table], {
  env: {
    GATEWAY_PORT: ports[0], ADMIN_PORT: ports[1], ACCESS_LOG: join(folder, "access.log"),
    WECHAT: `http://127.0.0.1:${wechat.port}`,
    ORDERS_V1: `127.0.0.1:${v1.port}`, ORDERS_V2: `127.0.0.1:${v2.port}`,
    SHOP_SECRET: SECRET,
    LOGIN_KEY: randomBytes(32).toString("hex"), SIGN_KEY: randomBytes(32).toString("hex"),
  },
  stdio: ["ignore", "pipe", "pipe"],
});
let said = "";
for (const stream of [gateway.stdout, gateway.stderr]) stream.on("data", (text) => { said += text; });
let ended = false;
gateway.on("exit", () => { ended = true; });

const base = `http://127.0.0.1:${ports[0]}`;
let step = 0;
let generation = 1;
try {
  await until("the gateway", async () => (await fetch(`http://127.0.0.1:${ports[1]}/readyz`)).ok);
  await walk();
  console.log("\nall as it should be");
} catch (error) {
  console.error(`\nnot as it should be: ${error.stack}\n\nThe gateway said:\n${said}`);
  process.exitCode = 1;
} finally {
  if (!ended) gateway.kill("SIGKILL");
  [wechat, v1, v2].forEach((server) => server.close());
  rmSync(folder, { recursive: true, force: true });
}
process.exit();

// === The walk ===

async function walk() {
  const sent = [];
  const upgrades = [];
  const wx = listening(wxInNode({ wechat: `http://127.0.0.1:${wechat.port}`, user: "alice" }), sent);
  const client = (version, more) => createClient({
    base, app: "shop", version, wx, onUpgrade: (kind, data) => upgrades.push([kind, data]), ...more,
  });
  const alice = client("3.4.0");

  tell("ten calls at once, and nobody is logged in yet");
  const lists = await Promise.all(Array.from({ length: 10 }, () => alice.request("GET", "/api/orders?b=2&a=1")));
  assert.deepEqual(lists.map((it) => it.data.length), Array(10).fill(0));
  assert.equal(wechat.asked.logins, 1, "ten calls are one login");
  assert.equal(new Set(v1.seen.map((it) => it.user)).size, 1);
  show(`one login; ten answers from ${lists[0].build}, for user ${v1.seen[0].user}`);

  tell("a signed call that changes something");
  const made = await alice.request("POST", "/api/orders", { item: "茶", count: 1 });
  assert.deepEqual(made.data, { id: 1, item: "茶", count: 1 });
  show(`order ${made.data.id} is made; signed as ${sent.at(-1).header["X-MP-Sign"].slice(0, 40)}…`);

  tell("PATCH, which wx.request does not have");
  const changed = await alice.request("PATCH", "/api/orders/1", { count: 2 });
  assert.equal(changed.data.count, 2);
  assert.equal(sent.at(-1).method, "POST");
  assert.equal(v1.seen.at(-1).method, "PATCH");
  show("sent as POST, judged and served as PATCH");

  tell("the same request again, byte for byte, as somebody who listened would send it");
  const replayed = await again(sent.findLast((it) => it.url.endsWith("/api/orders") && it.method === "POST"));
  assert.deepEqual([replayed.status, replayed.body.reason], [401, "replayed"]);
  show(`refused: ${replayed.status} ${replayed.body.reason}`);

  tell("the request with another body, under the old signature");
  const forged = await again(sent.findLast((it) => it.method === "POST"), '{"count":1000}');
  assert.deepEqual([forged.status, forged.body.reason], [401, "signature_invalid"]);
  show(`refused: ${forged.status} ${forged.body.reason}`);

  tell("a token expires, and ten calls at once find out");
  // Tokens are good for two hours; for a moment the table says one second, so that nobody has to wait.
  const bob = client("3.4.0", { wx: listening(wxInNode({ wechat: `http://127.0.0.1:${wechat.port}`, user: "bob" }), sent) });
  await change(/lifetime: \S+/, 'lifetime: 1s');
  await bob.request("GET", "/api/orders").catch(() => "it may have expired on the way");
  const { Authorization } = sent.at(-1).header;
  await until("the token to expire", async () => {
    const tried = await fetch(`${base}/api/orders`, { headers: { Authorization } });
    return (await tried.json()).reason === "token_expired";
  });
  await change("lifetime: 1s", "lifetime: 2h");
  const before = wechat.asked.logins;
  const after = await Promise.all(Array.from({ length: 10 }, () => bob.request("GET", "/api/orders")));
  assert.deepEqual(after.map((it) => it.data), Array(10).fill([]));
  assert.equal(wechat.asked.logins, before + 1, "ten refusals are one login");
  show("one login, ten answers; the pages that called noticed nothing");

  tell("a canary: version 3.5.0 gets the new service, all others the old one");
  const canary = client("3.5.0");
  assert.equal((await canary.request("GET", "/api/orders")).build, "v2");
  assert.equal((await alice.request("GET", "/api/orders")).build, "v1");
  show("3.5.0 is served by v2, 3.4.0 by v1");

  tell("an older version gets a hint");
  assert.deepEqual(upgrades, []);
  await client("3.1.0").request("GET", "/api/orders");
  assert.deepEqual(upgrades.splice(0), [["available", undefined]]);
  show("X-MP-Upgrade: available");

  tell("the table is changed: nothing below 3.5.0 is served any more");
  await change(/min_version: .*\n.*soft_min: \S+/, "min_version: 3.5.0\n    soft_min: 3.6.0");
  const refused = await alice.request("GET", "/api/orders").then(() => null, (error) => error);
  assert.ok(refused instanceof Refused, refused);
  assert.deepEqual([refused.status, refused.reason, refused.data.min], [426, "upgrade_required", "3.5.0"]);
  assert.equal(upgrades.at(-1)[0], "required");
  assert.equal((await canary.request("GET", "/api/orders")).build, "v2");
  show(`3.4.0 is refused: ${refused.status} ${refused.reason}, "${refused.data.message}"; 3.5.0 goes on`);

  const log = readFileSync(join(folder, "access.log"), "utf8");
  assert.ok(!log.includes(SECRET) && !said.includes(SECRET), "a secret was written down");
}

// === Helpers ===

function tell(text) {
  step += 1;
  console.log(`${step}. ${text}`);
}

function show(text) {
  console.log(`   ${text}`);
}

// Changes the table as an editor does, and waits until the gateway goes by it.
async function change(from, to) {
  const text = readFileSync(table, "utf8").replace(from, to);
  writeFileSync(`${table}.new`, text);
  renameSync(`${table}.new`, table);
  generation += 1;
  await until("the new table", async () => {
    const metrics = await (await fetch(`http://127.0.0.1:${ports[1]}/metrics`)).text();
    return Number(/^sluice_config_generation\S* (\d+)/m.exec(metrics)[1]) >= generation;
  });
}

// Remembers what goes over the wire.
function listening(wx, sent) {
  return { ...wx, request: (call) => { sent.push(call); return wx.request(call); } };
}

async function again({ url, method, header, data }, other = data) {
  const answer = await fetch(url, { method, headers: header, body: other });
  return { status: answer.status, body: await answer.json() };
}

async function until(what, holds) {
  const end = Date.now() + 60_000;
  while (Date.now() < end) {
    assert.ok(!ended, `the gateway has ended while waiting for ${what}`);
    if (await holds().catch(() => false)) return;
    await sleep(50);
  }
  assert.fail(`waited too long for ${what}`);
}

function freePort() {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}
