// The TypeScript client package 2.x behind the few calls that steps.mjs makes.

import {
  Client,
  SSEClientTransport,
  StreamableHTTPClientTransport,
} from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";

import { Session, capabilities } from "./session.mjs";

export const hasTasks = false;

export async function connect(cell, url = cell.url) {
  const session = new Session();
  const versionNegotiation = cell.mode ? { mode: cell.mode } : undefined;
  const client = new Client({ name: "suite", version: "1" }, { capabilities, versionNegotiation });
  client.setRequestHandler("sampling/createMessage", (r) => session.onSampling(r.params));
  client.setRequestHandler("elicitation/create", (r) => session.onElicitation(r.params));
  client.setRequestHandler("roots/list", () => session.onRoots());
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
