// Node's own fetch, and undici as LibreChat builds it, must get answers and HTTP/1.1.
//
// The cell comes as JSON in CELL, results go out as one JSON line per check, as in steps.mjs.
// The CA is trusted through NODE_EXTRA_CA_CERTS only.

import assert from "node:assert/strict";
import { subscribe } from "node:diagnostics_channel";

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { Agent, fetch as undiciFetch } from "undici";

const cell = JSON.parse(process.env.CELL);
const protocols = [];
subscribe("undici:client:connected", ({ socket }) => protocols.push(socket.alpnProtocol));

const headers = {
  Authorization: `Bearer ${cell.token}`,
  "Content-Type": "application/json",
};
const bare = { jsonrpc: "2.0", id: 1, method: "tools/list", params: {} };

async function listsTools(fetch, extra = {}) {
  protocols.length = 0;
  const init = { method: "POST", headers, body: JSON.stringify(bare), ...extra };
  const response = await fetch(cell.url, { ...init, signal: AbortSignal.timeout(15000) });
  assert.equal(response.status, 200, await response.clone().text());
  const answer = await response.json();
  assert.ok(answer.result.tools.some((t) => t.name === "echo"), JSON.stringify(answer));
  assert.deepEqual([...new Set(protocols)], ["http/1.1"], "ALPN");
}

const checks = {
  "fetch of Node: a bare tools/list, over HTTP/1.1": () => listsTools(fetch),

  "undici: the same": () => listsTools(undiciFetch, { dispatcher: new Agent() }),

  "undici that may use HTTP/2 lists HTTP/1.1 first and gets it": () =>
    listsTools(undiciFetch, { dispatcher: new Agent({ allowH2: true }) }),

  "the SDK on undici without timeouts, as LibreChat has it": async () => {
    const dispatcher = new Agent({ bodyTimeout: 0, headersTimeout: 0 });
    const transport = new StreamableHTTPClientTransport(new URL(cell.url), {
      requestInit: { headers: { Authorization: headers.Authorization } },
      fetch: (url, init) => undiciFetch(url, { ...init, dispatcher }),
    });
    const client = new Client({ name: "suite", version: "1" });
    await client.connect(transport);
    const got = await client.callTool({ name: "echo", arguments: { message: "libre" } });
    assert.equal(got.content[0].text, "Echo: libre");
    await transport.terminateSession();
    await client.close();
  },

  "fetch of Node: a wrong token is a 401 with a challenge and JSON": async () => {
    const wrong = { ...headers, Authorization: "Bearer wrong-wrong-wrong-wrong" };
    const init = { method: "POST", headers: wrong, body: JSON.stringify(bare) };
    const response = await fetch(cell.url, { ...init, signal: AbortSignal.timeout(15000) });
    assert.equal(response.status, 401);
    assert.match(response.headers.get("www-authenticate") ?? "", /^Bearer .*invalid_token/);
    await response.json();
  },
};

console.log(JSON.stringify({ plan: Object.keys(checks) }));
for (const [check, run] of Object.entries(checks)) {
  const started = Date.now();
  let detail = "";
  try {
    await run();
  } catch (error) {
    detail = `${error?.stack ?? error}`.split("\n").slice(0, 3).join(" < ");
    if (error?.cause) detail += ` (cause: ${error.cause})`;
  }
  const seconds = Math.round((Date.now() - started) / 10) / 100;
  console.log(JSON.stringify({ check, ok: !detail, seconds, detail }));
}
process.exit(0);
