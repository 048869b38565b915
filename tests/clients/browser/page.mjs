// What the pages of browser.mjs run: fetch, EventSource and the TypeScript SDKs, inside Chromium.
//
// esbuild makes one classic script of this, so that it also runs from file: and in a sandbox.

import { Client as Client1 } from "@modelcontextprotocol/sdk/client/index.js";
import { SSEClientTransport as Sse1 } from "@modelcontextprotocol/sdk/client/sse.js";
import { StreamableHTTPClientTransport as Http1 } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { Client as Client2, SSEClientTransport as Sse2, StreamableHTTPClientTransport as Http2 } from "@modelcontextprotocol/client";

const LONG = "trigger-long-running-operation";
const VERSION = "2025-11-25";
const READABLE = ["mcp-session-id", "www-authenticate", "retry-after", "x-request-id"];

const request = (id, method, params = {}) => ({ jsonrpc: "2.0", id, method, params });
const notification = (method) => ({ jsonrpc: "2.0", method });
const initialize = () =>
  request(0, "initialize", {
    protocolVersion: VERSION,
    capabilities: { roots: { listChanged: true } },
    clientInfo: { name: "page", version: "1" },
  });
const long = (id, duration, steps) =>
  request(id, "tools/call", {
    name: LONG, arguments: { duration, steps }, _meta: { progressToken: `p${id}` },
  });

function fieldsOf(edge, more = {}) {
  const token = edge.token ? { Authorization: `Bearer ${edge.token}` } : {};
  return { ...token, ...more };
}

function post(edge, message, more = {}, url = edge.url) {
  const body = typeof message === "string" ? message : JSON.stringify(message);
  const fields = {
    "Content-Type": "application/json", Accept: "application/json, text/event-stream", ...more,
  };
  return fetch(url, { method: "POST", headers: fieldsOf(edge, fields), body });
}

// The events of a response, each as soon as the browser has it.
async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const blocks = held.split("\n\n");
    held = blocks.pop();
    for (const block of blocks) {
      const event = {};
      for (const line of block.split("\n")) {
        const [, name, text] = /^([a-z]+): ?(.*)$/.exec(line) ?? [];
        if (name) event[name] = text;
      }
      if (event.data) yield event;
    }
  }
}

async function told(response) {
  const fields = Object.fromEntries(READABLE.map((n) => [n, response.headers.get(n)]));
  const text = await response.text();
  let json;
  try {
    json = JSON.parse(text);
  } catch {
    json = null;
  }
  return { status: response.status, type: response.headers.get("content-type"), fields, text, json };
}

// `undefined` if the browser lets the page have the answer, else what it says instead.
async function refusal(call) {
  try {
    await call();
    return undefined;
  } catch (error) {
    return `${error}`;
  }
}

async function answerIn(response, id) {
  for await (const event of eventsOf(response)) {
    const message = JSON.parse(event.data);
    if (message.id === id && !message.method) return message;
  }
  return undefined;
}

async function openSession(edge) {
  const response = await post(edge, initialize());
  const session = response.headers.get("mcp-session-id");
  const isStream = response.headers.get("content-type").startsWith("text/event-stream");
  const answer = isStream ? await answerIn(response, 0) : await response.json();
  const fields = { "Mcp-Session-Id": session, "Mcp-Protocol-Version": VERSION };
  const accepted = await post(edge, notification("notifications/initialized"), fields);
  return { fields, session, answer, accepted: accepted.status };
}

const end = async (edge, { fields }) =>
  (await fetch(edge.url, { method: "DELETE", headers: fieldsOf(edge, fields) })).status;

const suite = {
  bare: async (edge, more = {}) => told(await post(edge, request(1, "tools/list"), more)),

  // The first call's preflight is good for the others: one that is refused tells the page nothing.
  burst: async (edge, count) => {
    const first = await suite.bare(edge);
    return [first, ...(await Promise.all(Array.from({ length: count }, () => suite.bare(edge))))];
  },

  // A body of so many bytes, which the edge refuses before it has come.
  large: async (edge, bytes, { path = "/mcp", type = "application/json" } = {}) => {
    const empty = JSON.stringify(request(1, "ping", { x: "" })).length;
    const body = JSON.stringify(request(1, "ping", { x: "x".repeat(bytes - empty) }));
    return told(await post(edge, body, { "Content-Type": type }, edge.base + path));
  },

  refused: (edge, more = {}) => refusal(() => post(edge, request(1, "tools/list"), more)),

  // What a page may send to anybody, without asking: its answers are opaque to the page.
  blind: async (edge) => {
    const init = { method: "POST", mode: "no-cors", body: JSON.stringify(initialize()) };
    const types = ["text/plain", "application/x-www-form-urlencoded"];
    const found = types.map((type) => fetch(edge.url, { ...init, headers: { "Content-Type": type } }));
    const gets = ["/sse", "/mcp", "/mcp/tools"].map((p) => fetch(edge.base + p, { mode: "no-cors" }));
    const all = await Promise.allSettled([...found, ...gets]);
    return all.map((one) => one.value?.type ?? `${one.reason}`);
  },

  // Loads the edge as everything that a page can embed, and resolves when all of it has failed or loaded.
  embed: async (edge) => {
    const load = (tag, url) =>
      new Promise((resolve) => {
        const element = document.createElement(tag);
        element.onload = () => resolve("load");
        element.onerror = () => resolve("error");
        setTimeout(() => resolve("nothing"), 5000);
        element.src = url;
        document.body.append(element);
      });
    const tags = ["img", "script", "iframe"];
    return Promise.all(tags.map((tag) => load(tag, `${edge.base}/sse`)));
  },

  // A call's events while they come. A ping sent at the first one is answered before the last.
  streamed: async (edge) => {
    const session = await openSession(edge);
    const response = await post(edge, long(5, 2, 4), session.fields);
    const seen = [];
    let ping;
    for await (const event of eventsOf(response)) {
      const message = JSON.parse(event.data);
      if (message.method === "notifications/progress") seen.push(message.params.progress);
      if (message.id === 5) seen.push("result");
      ping ??= post(edge, request(6, "ping"), session.fields).then(async (answer) => {
        await answer.text();
        seen.push("ping");
      });
    }
    await ping;
    return { seen, type: response.headers.get("content-type"), session, ended: await end(edge, session) };
  },

  // The GET stream: what the server asks on it, and the same again for who comes back for it.
  listened: async (edge) => {
    const session = await openSession(edge);
    const asked = { ...session.fields, Accept: "text/event-stream" };
    const stop = new AbortController();
    const response = await fetch(edge.url, { headers: fieldsOf(edge, asked), signal: stop.signal });
    const events = eventsOf(response);
    const changed = await post(edge, notification("notifications/roots/list_changed"), session.fields);
    const found = [];
    for await (const event of events) {
      found.push(event);
      if (JSON.parse(event.data).method === "roots/list") break;
    }
    stop.abort();
    const last = found.at(-1);
    const from = found.at(-2)?.id ?? last.id.replace(/\d+$/, (n) => Number(n) - 1);
    const again = await fetch(edge.url, { headers: fieldsOf(edge, { ...asked, "Last-Event-ID": from }) });
    const { value } = await eventsOf(again).next();
    return {
      statuses: [response.status, changed.status, again.status],
      first: last, second: value, ended: await end(edge, session),
    };
  },

  // HTTP+SSE read by fetch, which can send the token.
  legacy: async (edge) => {
    const stop = new AbortController();
    const response = await fetch(`${edge.base}/sse`, {
      headers: fieldsOf(edge, { Accept: "text/event-stream" }), signal: stop.signal,
    });
    const events = eventsOf(response);
    const endpoint = (await events.next()).value;
    const url = new URL(endpoint.data, `${edge.base}/sse`).href;
    const statuses = [(await post(edge, initialize(), {}, url)).status];
    const found = [];
    for await (const event of events) {
      const message = JSON.parse(event.data);
      found.push(message.id);
      if (message.id === 0) {
        statuses.push((await post(edge, notification("notifications/initialized"), {}, url)).status);
        statuses.push((await post(edge, request(1, "tools/list"), {}, url)).status);
      }
      if (message.id === 1) break;
    }
    stop.abort();
    return { event: endpoint.event, statuses, found };
  },

  // The browser's own EventSource, which can send no token.
  source: (edge) =>
    new Promise((resolve) => {
      const source = new EventSource(`${edge.base}/sse`);
      const ids = [];
      let url;
      source.addEventListener("endpoint", async (event) => {
        url = new URL(event.data, `${edge.base}/sse`).href;
        await post(edge, initialize(), {}, url);
      });
      source.onmessage = async (event) => {
        const { id, method } = JSON.parse(event.data);
        if (method) return;
        ids.push(id);
        if (id === 0) {
          await post(edge, notification("notifications/initialized"), {}, url);
          await post(edge, request(1, "tools/list"), {}, url);
        } else {
          source.close();
          resolve({ ids });
        }
      };
      source.onerror = () => {
        const { readyState } = source;
        source.close();
        resolve({ ids, error: ["connecting", "open", "closed"][readyState] });
      };
    }),

  // One of the TypeScript SDKs, bundled for browsers.
  sdk: async (edge, version, kind) => {
    const [Client, Http, Sse] = version === 1 ? [Client1, Http1, Sse1] : [Client2, Http2, Sse2];
    const options = { requestInit: { headers: fieldsOf(edge) } };
    const transport =
      kind === "http"
        ? new Http(new URL(edge.url), options)
        : new Sse(new URL(`${edge.base}/sse`), options);
    const client = new Client({ name: "page", version: "1" });
    await client.connect(transport);
    const { tools } = await client.listTools();
    const progress = [];
    const call = { name: LONG, arguments: { duration: 0.6, steps: 3 } };
    const onprogress = (p) => progress.push(p.progress);
    const args = version === 1 ? [call, undefined, { onprogress }] : [call, { onprogress }];
    const result = await client.callTool(...args);
    const server = client.getServerVersion().name;
    await transport.terminateSession?.();
    await client.close();
    return {
      server,
      tools: tools.map((t) => t.name),
      text: result.content[0].text,
      progress,
    };
  },
};

globalThis.suite = suite;
