// The TypeScript SDK 1.x over Streamable HTTP: sessions in this process, the tool list in pages.
//
// Usage: ts_http.mjs --port PORT [--path PATH] [--unknown-session 404|400] [--quiet]
//
// 400 is how the SDK's own examples answer a session id that they do not know; 404 is the standard.
// With --quiet it does not keep its silent streams alive.
// UPSTREAM_COUNTS and UPSTREAM_TOKEN are as in tools.py.

import { randomUUID } from "node:crypto";
import { appendFileSync } from "node:fs";
import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";

import { Server } from "@modelcontextprotocol/sdk/server/index.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import {
  CallToolRequestSchema,
  ElicitResultSchema,
  ErrorCode,
  ListToolsRequestSchema,
  McpError,
} from "@modelcontextprotocol/sdk/types.js";

const { values: options } = parseArgs({
  options: {
    port: { type: "string" },
    path: { type: "string", default: "/mcp" },
    "unknown-session": { type: "string", default: "404" },
    quiet: { type: "boolean", default: false },
  },
});
const PAGE = 4;
const token = process.env.UPSTREAM_TOKEN;
const transports = new Map();
const watch = { streams: 0, requests: {} };

const text = (text) => ({ content: [{ type: "text", text }] });
const count = (tool, key) => appendFileSync(process.env.UPSTREAM_COUNTS, `${tool} ${key}\n`);
const string = { type: "string" };
const number = { type: "number" };
const integer = { type: "integer" };

const tools = new Map();
function tool(name, properties, readOnlyHint, run, optional = []) {
  const required = Object.keys(properties).filter((key) => !optional.includes(key));
  const inputSchema = { type: "object", properties, required };
  const definition = { name, inputSchema, ...(readOnlyHint && { annotations: { readOnlyHint } }) };
  tools.set(name, { definition, run });
}

tool("echo", { text: string }, true, (a) => text(`Echo: ${a.text}`));
tool("add", { a: integer, b: integer }, true, ({ a, b }) => text(`${a + b}`));
tool("slow", { seconds: number }, true, async ({ seconds }) => {
  await sleep(seconds * 1000);
  return text(`slept ${seconds} s`);
});
for (const kind of ["unsafe", "safe"]) {
  const run = async ({ key, seconds = 0 }) => {
    count(kind, key);
    await sleep(seconds * 1000);
    return text(`counted ${key}`);
  };
  tool(`count_${kind}`, { key: string, seconds: number }, kind === "safe", run, ["seconds"]);
}
const ask = async ({ how = "elicit" }, extra, server) => {
  if (how === "elicit") {
    const requestedSchema = { type: "object", properties: { name: string }, required: ["name"] };
    const params = { mode: "form", message: "What is your name?", requestedSchema };
    const found = await extra.sendRequest({ method: "elicitation/create", params }, ElicitResultSchema);
    return text(found.action + (found.action === "accept" ? ` ${found.content.name}` : ""));
  }
  const messages = [{ role: "user", content: { type: "text", text: "who are you" } }];
  const found = await server.createMessage({ messages, maxTokens: 77 });
  return text(`${found.model}: ${found.content.text}`);
};
tool("ask", { how: string }, false, ask, ["how"]);
tool("progress", { steps: integer }, true, async ({ steps }, extra) => {
  const progressToken = extra._meta?.progressToken;
  for (let progress = 1; progress <= steps; progress += 1) {
    await sleep(100);
    if (progressToken === undefined) continue;
    const params = { progressToken, progress, total: steps };
    await extra.sendNotification({ method: "notifications/progress", params });
  }
  return text(`${steps} steps`);
});
tool("big", { bytes: integer }, true, ({ bytes }) => text("x".repeat(bytes)));
tool("log", { level: string }, false, async ({ level }, extra) => {
  const params = { level, data: `logged at ${level}` };
  await extra.sendNotification({ method: "notifications/message", params });
  return text("logged");
});
const announce = async ({ text: data, after = 0 }, _extra, server) => {
  const params = { level: "warning", data };
  const send = () => server.notification({ method: "notifications/message", params });
  if (after) setTimeout(send, after * 1000);
  else await send();
  return text("announced");
};
tool("announce", { text: string, after: number }, false, announce, ["after"]);
tool("headers", {}, true, (_a, extra) => text(JSON.stringify(extra.requestInfo.headers)));

function build() {
  const server = new Server(
    { name: "fixture", version: "1" },
    { capabilities: { tools: {}, logging: {} }, instructions: "A server of the test suite." },
  );
  server.setRequestHandler(ListToolsRequestSchema, ({ params }) => {
    const first = Number(params?.cursor ?? 0);
    const all = [...tools.values()].map(({ definition }) => definition);
    const next = first + PAGE;
    return { tools: all.slice(first, next), ...(next < all.length && { nextCursor: `${next}` }) };
  });
  server.setRequestHandler(CallToolRequestSchema, ({ params }, extra) => {
    const { name, arguments: given = {} } = params;
    const found = tools.get(name);
    if (!found) throw new McpError(ErrorCode.InvalidParams, `Unknown tool: ${name}`);
    const missing = found.definition.inputSchema.required.filter((key) => !(key in given));
    if (missing.length) return { ...text(`missing: ${missing}`), isError: true };
    const types = Object.entries(found.definition.inputSchema.properties);
    const numeric = types.filter(([, { type }]) => type !== "string").map(([key]) => key);
    const wrong = numeric.filter((key) => key in given && typeof given[key] !== "number");
    if (wrong.length) return { ...text(`no number: ${wrong}`), isError: true };
    return found.run(given, extra, server);
  });
  return server;
}

function answer(response, status, found) {
  response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(found));
}

function refuse(response, status, message) {
  answer(response, status, { jsonrpc: "2.0", error: { code: -32000, message }, id: null });
}

async function bodyOf(request) {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  return JSON.parse(Buffer.concat(pieces).toString());
}

async function handle(request, response) {
  const { pathname } = new URL(request.url, "http://localhost");
  if (pathname === "/_watch") return answer(response, 200, watch);
  watch.requests[request.method] = (watch.requests[request.method] ?? 0) + 1;
  if (token && request.headers.authorization !== `Bearer ${token}`) {
    return refuse(response, 401, "the upstream wants its own token");
  }
  if (pathname !== options.path) return refuse(response, 404, "no such page");
  if (request.method === "GET") {
    watch.streams += 1;
    response.on("close", () => (watch.streams -= 1));
  }
  const body = request.method === "POST" ? await bodyOf(request) : undefined;
  const session = request.headers["mcp-session-id"];
  let transport = transports.get(session);
  if (!transport) {
    if (session) return refuse(response, Number(options["unknown-session"]), "no such session");
    if (body?.method !== "initialize") return refuse(response, 400, "no session");
    transport = new StreamableHTTPServerTransport({
      sessionIdGenerator: () => randomUUID(),
      keepAliveMs: options.quiet ? 0 : undefined,
      onsessioninitialized: (id) => transports.set(id, transport),
    });
    transport.onclose = () => transports.delete(transport.sessionId);
    await build().connect(transport);
  }
  await transport.handleRequest(request, response, body);
}

const server = createServer((request, response) => {
  handle(request, response).catch((error) => {
    console.error(error);
    if (!response.headersSent) refuse(response, 500, "the fixture failed");
  });
});
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => process.exit(0));
server.listen(Number(options.port), "127.0.0.1");
