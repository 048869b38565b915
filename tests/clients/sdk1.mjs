// The TypeScript SDK 1.x behind the few calls that steps.mjs makes.

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { SSEClientTransport } from "@modelcontextprotocol/sdk/client/sse.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import {
  CallToolResultSchema,
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  ListRootsRequestSchema,
} from "@modelcontextprotocol/sdk/types.js";

import { Session, capabilities } from "./session.mjs";

export const hasTasks = true;

export async function connect(cell, url = cell.url) {
  const session = new Session();
  const client = new Client({ name: "suite", version: "1" }, { capabilities });
  client.setRequestHandler(CreateMessageRequestSchema, (r) => session.onSampling(r.params));
  client.setRequestHandler(ElicitRequestSchema, (r) => session.onElicitation(r.params));
  client.setRequestHandler(ListRootsRequestSchema, () => session.onRoots());
  const transport = open(cell, url);
  await session.attach(client, transport);
  return session;
}

function open(cell, url) {
  if (cell.kind === "stdio") {
    const [command, ...args] = cell.server;
    return new StdioClientTransport({ command, args, env: cell.env ?? undefined, stderr: "ignore" });
  }
  const headers = cell.token ? { Authorization: `Bearer ${cell.token}` } : {};
  const options = { requestInit: { headers } };
  return cell.kind === "sse"
    ? new SSEClientTransport(new URL(url), options)
    : new StreamableHTTPClientTransport(new URL(url), options);
}

// A task-augmented call of 2025-11-25: created, polled to the end, fetched.
export async function task(session, name, args) {
  const states = [];
  let created, result;
  const stream = session.client.experimental.tasks.callToolStream(
    { name, arguments: args },
    CallToolResultSchema,
    { task: { ttl: 60000 } },
  );
  for await (const message of stream) {
    if (message.type === "taskCreated") created = message.task;
    if (message.type === "taskStatus") states.push(message.task.status);
    if (message.type === "result") result = message.result;
    if (message.type === "error") throw message.error;
  }
  return { created, states, result };
}
