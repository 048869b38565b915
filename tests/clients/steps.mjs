// Walks one cell of the matrix with a TypeScript SDK; the twin of steps.py, same checks.
//
// The cell comes as JSON in CELL. Every check is one JSON line on stdout, after a first line that
// names them all, so that the suite can tell a check which never ran.

import assert from "node:assert/strict";
import { gunzipSync } from "node:zlib";
import { setTimeout as sleep } from "node:timers/promises";

import { forwarder } from "./forwarder.mjs";
import {
  ODD_TEXT, answer, connectTo, handshake, pages, plain, plan, textOf, walk, within,
} from "./walk.mjs";

const cell = JSON.parse(process.env.CELL);
const sdk = await import(`./${cell.sdk}.mjs`);

const STATIC = "demo://resource/static/document/features.md";
const TEXT = "demo://resource/dynamic/text/";

const steps = [];
const step = (name, run, needs = () => true) => steps.push({ name, run, needs });
// The reference server's own HTTP transport resumes streams wrongly: it is no measure.
const overHttp = () => cell.kind === "http" && cell.edge;
const onNetwork = () => cell.kind !== "stdio";
const portOf = (url) => Number(new URL(url).port);
const LONG = "trigger-long-running-operation";

// What a server answers alike at any time, over any transport.
const FAITHFUL = {
  "echo": (s) => s.call("echo", { message: "hello" }),
  "echo without its argument": (s) => s.call("echo", {}),
  "get-sum": (s) => s.call("get-sum", { a: 2.5, b: -4 }),
  "get-sum of words": (s) => s.call("get-sum", { a: "two", b: "four" }),
  "an unknown tool": (s) => s.call("no-such-tool"),
  "get-tiny-image": (s) => s.call("get-tiny-image"),
  "get-structured-content": (s) => s.call("get-structured-content", { location: "Chicago" }),
  "get-annotated-message": (s) =>
    s.call("get-annotated-message", { messageType: "error", includeImage: true }),
  "a task tool called plainly": (s) => s.call("simulate-research-query", { topic: "tea" }),
  "simple-prompt": (s) => s.client.getPrompt({ name: "simple-prompt" }),
  "args-prompt": (s) => s.client.getPrompt({ name: "args-prompt", arguments: { city: "Oslo" } }),
  "args-prompt without its argument": (s) =>
    s.client.getPrompt({ name: "args-prompt", arguments: {} }),
  "an unknown prompt": (s) => s.client.getPrompt({ name: "no-such-prompt" }),
  "a static resource": (s) => s.client.readResource({ uri: STATIC }),
  "an unknown resource": (s) => s.client.readResource({ uri: "demo://resource/none" }),
  "a completion": (s) => completePrompt(s, "department", "S"),
  "prompts": (s) => pages((p) => s.client.listPrompts(p), "prompts"),
  "resources": (s) => pages((p) => s.client.listResources(p), "resources"),
  "templates": (s) => pages((p) => s.client.listResourceTemplates(p), "resourceTemplates"),
};

const tools = (s) => pages((p) => s.client.listTools(p), "tools");

function completePrompt(s, name, value, context) {
  const ref = { type: "ref/prompt", name: "completable-prompt" };
  return s.client.complete({ ref, argument: { name, value }, ...(context && { context }) });
}

step("initialize", (s, wanted) => {
  assert.deepEqual(handshake(s), wanted.initialize);
  const version = s.client.getNegotiatedProtocolVersion?.() ?? s.transport.protocolVersion;
  if (version !== undefined) assert.equal(version, "2025-11-25");
});

step("tools/list: all of them, as over stdio", async (s, wanted) => {
  const got = await tools(s);
  assert.deepEqual(got.map((t) => t.name), wanted.tools.map((t) => t.name));
  assert.deepEqual(got, wanted.tools);
});

step("same answers as over stdio", async (s, wanted) => {
  const differing = [];
  for (const [name, call] of Object.entries(FAITHFUL)) {
    const got = JSON.stringify(await answer(s, call));
    const want = JSON.stringify(wanted[name]);
    if (got !== want) differing.push(`${name}: got ${got.slice(0, 900)}, wanted ${want.slice(0, 900)}`);
  }
  assert.equal(differing.length, 0, differing.join("\n"));
});

step("echo of odd text", async (s) => {
  assert.equal(textOf(await s.call("echo", { message: ODD_TEXT })), `Echo: ${ODD_TEXT}`);
});

step("echo of 600 kB", async (s) => {
  const message = "0123456789abcdef".repeat(37500);
  const got = textOf(await s.call("echo", { message }));
  assert.ok(got === `Echo: ${message}`, `${got.length} characters came back`);
});

step("twenty calls at once", async (s) => {
  await Promise.all(
    Array.from({ length: 20 }, async (_, n) => {
      const got = textOf(await s.call("get-sum", { a: n, b: 1000 }));
      assert.equal(got, `The sum of ${n} and 1000 is ${n + 1000}.`);
    }),
  );
});

const upTo = (count) => Array.from({ length: count }, (_, n) => [n + 1, count]);

// The SDK may lose the last ones, see session.mjs; on the wire all must come before the result.
function progressed(s, since, seen, count) {
  const wire = s.messages.slice(since);
  const result = wire.findIndex((m) => m.result?.content?.[0].text.includes(`Steps: ${count}.`));
  const progress = wire
    .slice(0, result)
    .filter((m) => m.method === "notifications/progress" && m.params.total === count)
    .map((m) => [m.params.progress, m.params.total]);
  assert.deepEqual(progress, upTo(count), "on the wire");
  assert.ok(seen.length > 0, "the SDK told of no progress");
  assert.deepEqual(seen, upTo(count).slice(0, seen.length), "as the SDK tells it");
}

function progressInto(seen) {
  return { onprogress: ({ progress, total }) => seen.push([progress, total]) };
}

step("progress in order, before the result", async (s) => {
  const since = s.messages.length;
  const seen = [];
  const result = await s.call(LONG, { duration: 1.5, steps: 6 }, progressInto(seen));
  assert.match(textOf(result), /Steps: 6/);
  progressed(s, since, seen, 6);
});

step("progress of two calls at once, each its own", async (s) => {
  const since = s.messages.length;
  const three = [];
  const five = [];
  await Promise.all([
    s.call(LONG, { duration: 1.2, steps: 3 }, progressInto(three)),
    s.call(LONG, { duration: 1.2, steps: 5 }, progressInto(five)),
  ]);
  progressed(s, since, three, 3);
  progressed(s, since, five, 5);
});

step("sampling, answered", async (s) => {
  const args = { prompt: "why is the sky blue", maxTokens: 77 };
  const result = textOf(await s.call("trigger-sampling-request", args));
  assert.equal((await s.waitAsked("sampling/createMessage")).maxTokens, 77);
  assert.match(result, /answer to <Resource trigger-sampling-request context: why is/);
  assert.match(result, /test-model/);
});

step("sampling, refused by the client", async (s) => {
  const before = s.sample;
  s.sample = () => null;
  const result = await s.call("trigger-sampling-request", { prompt: "no", maxTokens: 5 });
  s.sample = before;
  assert.equal(result.isError, true);
  assert.match(textOf(result), /the user declined/);
});

step("elicitation, accepted, declined and cancelled", async (s) => {
  const since = s.asked.length;
  s.elicit = { action: "accept", content: { name: "Ada Lovelace", integer: 7 } };
  const accepted = await s.call("trigger-elicitation-request");
  assert.match(textOf(accepted, 1), /- Name: Ada Lovelace/);
  const asked = await s.waitAsked("elicitation/create", undefined, since);
  assert.ok(asked.requestedSchema.properties.legacyTitledEnum, JSON.stringify(asked));
  for (const [action, words] of [["decline", /declined/], ["cancel", /cancelled/]]) {
    s.elicit = { action };
    assert.match(textOf(await s.call("trigger-elicitation-request")), words);
  }
});

step("url elicitation, as request and as error -32042", async (s) => {
  s.elicit = { action: "accept" };
  const args = { url: "https://example.com/consent", elicitationId: "e-1" };
  assert.match(textOf(await s.call("trigger-url-elicitation", args)), /Elicitation ID: e-1/);
  await assert.rejects(s.call("trigger-url-elicitation", { ...args, errorPath: true }), (error) => {
    assert.equal(error.code, -32042);
    assert.equal(error.data.elicitations[0].mode, "url");
    return true;
  });
});

step("roots, and roots that change", async (s) => {
  const since = s.notes.length;
  const before = textOf(await s.call("get-roots-list"));
  assert.match(before, /file:\/\/\/suite\/one/);
  assert.match(before, /file:\/\/\/suite\/two/);
  await s.waitAsked("roots/list");
  s.roots.push({ uri: "file:///suite/three", name: "Three" });
  await s.client.sendRootsListChanged();
  const updated = (p) => String(p.data).includes("Roots updated: 3");
  await s.waitNote("notifications/message", updated, since);
  assert.match(textOf(await s.call("get-roots-list")), /file:\/\/\/suite\/three/);
});

step("prompts with arguments and with a resource", async (s) => {
  const args = { department: "Sales", name: "Eve" };
  let got = await s.client.getPrompt({ name: "completable-prompt", arguments: args });
  const text = "Please promote Eve to the head of the Sales team.";
  assert.equal(got.messages[0].content.text, text);
  const of = { resourceType: "Text", resourceId: "3" };
  got = await s.client.getPrompt({ name: "resource-prompt", arguments: of });
  assert.equal(got.messages[1].content.resource.uri, `${TEXT}3`);
});

step("resources by template, text and binary", async (s) => {
  const text = (await s.client.readResource({ uri: `${TEXT}42` })).contents[0];
  assert.match(text.text, /^Resource 42: This is a plaintext/);
  const blob = (await s.client.readResource({ uri: "demo://resource/dynamic/blob/43" })).contents[0];
  assert.match(Buffer.from(blob.blob, "base64").toString(), /^Resource 43: This is a base64/);
});

step("a resource made in the session, and its list_changed", async (s) => {
  const since = s.notes.length;
  const packed = Buffer.from("packed by the suite").toString("base64");
  const args = { name: "suite.gz", data: `data:text/plain;base64,${packed}` };
  const { uri } = (await s.call("gzip-file-as-resource", args)).content[0];
  await s.waitNote("notifications/resources/list_changed", undefined, since);
  const listed = await FAITHFUL.resources(s);
  assert.ok(listed.some((r) => r.uri === uri), "not listed");
  const { blob } = (await s.client.readResource({ uri })).contents[0];
  assert.equal(gunzipSync(Buffer.from(blob, "base64")).toString(), "packed by the suite");
});

step("subscribe, updated, unsubscribe", async (s) => {
  const since = s.notes.length;
  const uri = `${TEXT}7`;
  await s.client.subscribeResource({ uri });
  await s.call("toggle-subscriber-updates");
  try {
    await s.waitNote("notifications/resources/updated", (p) => p.uri === uri, since);
  } finally {
    await s.client.unsubscribeResource({ uri });
    await s.call("toggle-subscriber-updates");
  }
});

step("log messages, and only from the level asked for", async (s) => {
  const about = (n) => (p) => p.level === "info" && String(p.data).includes(`${TEXT}${n}`);
  const since = s.notes.length;
  await s.client.setLoggingLevel("error");
  await s.client.subscribeResource({ uri: `${TEXT}101` });
  await s.client.setLoggingLevel("debug");
  await s.client.subscribeResource({ uri: `${TEXT}102` });
  await s.waitNote("notifications/message", about(102), since);
  const quiet = s.notes.slice(since).filter((n) => about(101)(n.params));
  assert.deepEqual(quiet, []);
  for (const n of [101, 102]) await s.client.unsubscribeResource({ uri: `${TEXT}${n}` });
});

step("completion of prompt and template arguments", async (s) => {
  let got = await completePrompt(s, "department", "E");
  assert.deepEqual(got.completion.values, ["Engineering"]);
  got = await completePrompt(s, "name", "A", { arguments: { department: "Engineering" } });
  assert.deepEqual(got.completion.values, ["Alice"]);
  const ref = { type: "ref/resource", uri: `${TEXT}{resourceId}` };
  got = await s.client.complete({ ref, argument: { name: "resourceId", value: "12" } });
  assert.deepEqual(got.completion.values, ["12"]);
});

step("ping", async (s) => {
  assert.deepEqual(plain(await s.client.ping()), {});
});

step("structured content", async (s) => {
  const got = await s.call("get-structured-content", { location: "New York" });
  const weather = { temperature: 33, conditions: "Cloudy", humidity: 82 };
  assert.deepEqual(plain(got.structuredContent), weather);
});

step("a cancelled call leaves the session usable", async (s) => {
  const stop = new AbortController();
  const options = { signal: stop.signal, onprogress: () => stop.abort("enough") };
  const cancelled = s.call(LONG, { duration: 3, steps: 6 }, options);
  await assert.rejects(within(5000, cancelled, "no end after the cancel"), /enough/);
  await within(5000, s.call("echo", { message: "after" }), "no echo after the cancel");
  await within(5000, s.client.ping(), "no ping after the cancel");
  await sleep(600);
  assert.equal(textOf(await s.call("echo", { message: "still" })), "Echo: still");
});

step(
  "the child has the listed variables and no token",
  async (s) => {
    const got = JSON.parse(textOf(await s.call("get-env")));
    assert.ok(!JSON.stringify(got).includes(cell.secret), "the token is in the child's environment");
    assert.equal(got.MCP_AUTH_TOKEN, undefined);
    assert.ok(got.SUITE_MARK, `--env did not reach the child: ${Object.keys(got)}`);
    assert.equal(got.SUITE_UNLISTED, undefined, "a variable nobody listed reached the child");
    assert.ok(got.PATH, "no PATH");
  },
  () => cell.edge,
);

step(
  "a task: created, polled, fetched",
  async (s) => {
    const { created, states, result } = await sdk.task(s, "simulate-research-query", { topic: "tea" });
    assert.ok(created?.taskId, JSON.stringify(created));
    assert.equal(states.at(-1), "completed", states.join());
    assert.match(textOf(result), /tea/);
  },
  () => sdk.hasTasks,
);

step(
  "a second session sees nothing of the first",
  async (s) => {
    const other = await sdk.connect(cell);
    try {
      await other.waitAsked("roots/list");
      await sleep(300);
      const before = other.messages.length;
      await s.call(LONG, { duration: 0.6, steps: 3 }, progressInto([]));
      await s.call("trigger-sampling-request", { prompt: "mine", maxTokens: 5 });
      await s.client.setLoggingLevel("debug");
      await s.client.subscribeResource({ uri: `${TEXT}103` });
      await s.client.unsubscribeResource({ uri: `${TEXT}103` });
      await sleep(300);
      assert.deepEqual(other.messages.slice(before), []);
      assert.equal(textOf(await other.call("echo", { message: "mine" })), "Echo: mine");
    } finally {
      await other.close();
    }
  },
  onNetwork,
);

async function behindForwarder(use) {
  const carrier = await forwarder(portOf(cell.url));
  const url = new URL(cell.url);
  url.port = carrier.port;
  try {
    const s = await sdk.connect(cell, url.href);
    try {
      await use(s, carrier);
    } finally {
      await s.close();
    }
  } finally {
    await carrier.close();
  }
}

step(
  "a cut GET stream comes back and misses nothing",
  () =>
    behindForwarder(async (s, carrier) => {
      await s.waitAsked("roots/list");
      await s.client.subscribeResource({ uri: `${TEXT}8` });
      await s.call("toggle-subscriber-updates");
      const began = Date.now();
      const updates = () =>
        s.notes.filter((n) => n.method === "notifications/resources/updated").length;
      // The server notifies every five seconds: cut just before the second one, which then
      // happens while the client waits its second before it comes back.
      await s.waitNote("notifications/resources/updated");
      await sleep(began + 4600 - Date.now());
      assert.equal(updates(), 1, "updates before the cut");
      const carried = carrier.accepted;
      assert.ok(carrier.cut(), "nothing to cut");
      await sleep(began + 13000 - Date.now());
      assert.ok(carrier.accepted > carried, "the client never came back");
      assert.equal(updates(), 3, `${updates()} updates after 13 s, the second during the cut`);
      assert.equal(textOf(await s.call("echo", { message: "still" })), "Echo: still");
    }),
  overHttp,
);

step(
  "a call whose connection is cut still gets its result",
  () =>
    behindForwarder(async (s, carrier) => {
      await s.waitAsked("roots/list");
      const seen = [];
      let cut;
      const onprogress = ({ progress }) => {
        seen.push(progress);
        cut ??= carrier.cut();
      };
      const result = await s.call(LONG, { duration: 4, steps: 8 }, { onprogress });
      assert.ok(cut, "nothing to cut");
      assert.match(textOf(result), /Steps: 8/);
      const ordered = [...new Set(seen)].sort((a, b) => a - b);
      assert.deepEqual(seen, ordered, "progress, each once and in order");
    }),
  overHttp,
);

// What the same SDK gets from the same server over stdio.
async function reference() {
  const direct = { ...cell, kind: "stdio", server: cell.reference, env: cell.mark };
  const s = await connectTo(sdk, direct);
  const wanted = { initialize: handshake(s), tools: await tools(s) };
  for (const [name, call] of Object.entries(FAITHFUL)) wanted[name] = await answer(s, call);
  await s.client.close();
  return wanted;
}

await walk(sdk, cell, plan(steps, cell), reference);
