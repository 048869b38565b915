// What both TypeScript adapters record of a session and how their client side answers.

import { setTimeout as sleep } from "node:timers/promises";

export const capabilities = {
  sampling: {},
  elicitation: { form: {}, url: {} },
  roots: { listChanged: true },
};

export class Session {
  notes = []; // {method, params} of every notification, in order
  asked = []; // {method, params} of every request the server made
  faults = []; // what the transport reported as broken
  messages = []; // every message as it came off the wire
  roots = [
    { uri: "file:///suite/one", name: "One" },
    { uri: "file:///suite/two", name: "Two" },
  ];
  elicit = { action: "accept", content: { name: "Ada" } };
  sample = (params) => `answer to <${params.messages[0].content.text}>`;

  async attach(client, transport) {
    this.client = client;
    this.transport = transport;
    client.onerror = (error) => {
      // The SDK forgets a token as soon as it reads the result or cancels, even when progress that
      // came before it in the same read still waits. steps.mjs looks at the wire instead. FastMCP
      // answers what was cancelled, and the SDK no longer knows what it asked.
      if (/unknown token|Request cancelled/.test(String(error))) return;
      this.faults.push(String(error));
    };
    client.fallbackNotificationHandler = async ({ method, params }) => {
      this.notes.push({ method, params: params ?? {} });
    };
    await client.connect(transport);
    // Wrapped after connect(), which puts its own handler in.
    const inner = transport.onmessage;
    transport.onmessage = (message, extra) => {
      this.messages.push(message);
      inner(message, extra);
    };
  }

  async close() {
    await this.transport.terminateSession?.();
    await this.client.close();
  }

  onSampling(params) {
    this.asked.push({ method: "sampling/createMessage", params });
    const text = this.sample(params);
    if (text === null) throw Object.assign(new Error("the user declined"), { code: -1 });
    return { role: "assistant", content: { type: "text", text }, model: "test-model" };
  }

  onElicitation(params) {
    this.asked.push({ method: "elicitation/create", params });
    return this.elicit;
  }

  onRoots() {
    this.asked.push({ method: "roots/list", params: {} });
    return { roots: this.roots };
  }

  call(name, args = {}, options = undefined) {
    return this.client.callTool({ name, arguments: args }, ...this.tail(options));
  }

  // callTool(params, schema, options) in 1.x, callTool(params, options) in 2.x.
  tail(options) {
    if (options === undefined) return [];
    return this.client.setVersionNegotiation ? [options] : [undefined, options];
  }

  waitNote(method, matches, since = 0, timeout = 10000) {
    return wait(this.notes, method, matches, since, timeout);
  }

  waitAsked(method, matches, since = 0, timeout = 10000) {
    return wait(this.asked, method, matches, since, timeout);
  }
}

async function wait(log, method, matches = () => true, since, timeout) {
  const deadline = Date.now() + timeout;
  while (Date.now() < deadline) {
    const found = log.slice(since).find((m) => m.method === method && matches(m.params));
    if (found) return found.params;
    await sleep(20);
  }
  throw new Error(`no ${method} within ${timeout} ms; got ${JSON.stringify(log.slice(since))}`);
}
