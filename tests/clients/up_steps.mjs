// Walks one cell with a TypeScript SDK: a session with a fixture upstream; the twin of up_steps.py.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

import {
  ODD_TEXT, answer, connectTo, handshake, pages, plain, plan, textOf, walk, within,
} from "./walk.mjs";

const cell = JSON.parse(process.env.CELL);
const sdk = await import(`./${cell.sdk}.mjs`);

const MESSAGE = "notifications/message";
const NAMES = [
  "echo", "add", "slow", "count_unsafe", "count_safe", "ask", "progress", "big", "log", "announce",
  "headers",
];

const steps = [];
const step = (name, run, needs = () => true) => steps.push({ name, run, needs });
// Whether the upstream can say something on the stream of a call, and on that of a session.
const callStreams = () => cell.upstream.kind !== "json";
const sessionStreams = () => cell.upstream.kind !== "stateless";
const asks = () => callStreams() && sessionStreams();

// What the upstream answers alike at any time, over any transport.
const FAITHFUL = {
  "echo": (s) => s.call("echo", { text: "hello" }),
  "echo without its argument": (s) => s.call("echo", {}),
  "add": (s) => s.call("add", { a: 2, b: -4 }),
  "add of words": (s) => s.call("add", { a: "two", b: "four" }),
  "an unknown tool": (s) => s.call("no-such-tool"),
  "big": (s) => s.call("big", { bytes: 100 }),
};

const tools = (s) => pages((p) => s.client.listTools(p), "tools");

step("initialize", (s, wanted) => assert.deepEqual(handshake(s), wanted.initialize));

step("tools/list: all of them, as from the upstream itself", async (s, wanted) => {
  const got = await tools(s);
  assert.deepEqual(got.map((t) => t.name), NAMES);
  assert.deepEqual(got, wanted.tools);
});

step("same answers as from the upstream itself", async (s, wanted) => {
  for (const [name, call] of Object.entries(FAITHFUL)) {
    assert.deepEqual(await answer(s, call), wanted[name], name);
  }
});

step("echo of odd text", async (s) => {
  assert.equal(textOf(await s.call("echo", { text: ODD_TEXT })), `Echo: ${ODD_TEXT}`);
});

step("600 kB up, 2 MB down", async (s) => {
  const text = "0123456789abcdef".repeat(37500);
  const got = textOf(await s.call("echo", { text }));
  assert.ok(got === `Echo: ${text}`, `${got.length} characters came back`);
  assert.equal(textOf(await s.call("big", { bytes: 2000000 })).length, 2000000);
});

step("twenty calls at once, side by side", async (s) => {
  const started = Date.now();
  await Promise.all(
    Array.from({ length: 20 }, async (_, n) => {
      assert.equal(textOf(await s.call("add", { a: n, b: 1000 })), `${n + 1000}`);
      await s.call("slow", { seconds: 0.3 });
    }),
  );
  assert.ok(Date.now() - started < 4000, `${Date.now() - started} ms: one after the other is 6 s`);
});

step("an unsafe call runs once", async (s) => {
  const key = `once-${process.hrtime.bigint()}`;
  assert.equal(textOf(await s.call("count_unsafe", { key })), `counted ${key}`);
  const lines = readFileSync(cell.upstream.counts, "utf8").split("\n");
  assert.equal(lines.filter((line) => line === `unsafe ${key}`).length, 1);
});

// The SDK may lose the last ones, see session.mjs; on the wire all must come before the result.
step(
  "progress in order, before the result",
  async (s) => {
    const since = s.messages.length;
    const onprogress = () => {};
    await Promise.all([3, 5].map((steps) => s.call("progress", { steps }, { onprogress })));
    const wire = s.messages.slice(since);
    for (const count of [3, 5]) {
      const end = wire.findIndex((m) => m.result?.content?.[0].text === `${count} steps`);
      const seen = wire.slice(0, end).filter((m) => m.params?.total === count);
      const numbers = Array.from({ length: count }, (_, n) => n + 1);
      assert.deepEqual(seen.map((m) => m.params.progress), numbers);
    }
  },
  callStreams,
);

step(
  "a log message of a call",
  async (s) => {
    const since = s.notes.length;
    await s.call("log", { level: "error" });
    await s.waitNote(MESSAGE, (p) => p.level === "error" && p.data === "logged at error", since);
  },
  callStreams,
);

// Announces until it is heard: the stream of the session may open only now.
async function announced(s, text) {
  const deadline = Date.now() + 10000;
  for (;;) {
    const since = s.notes.length;
    await s.call("announce", { text });
    try {
      return await s.waitNote(MESSAGE, (p) => p.data === text, since, 500);
    } catch (error) {
      if (Date.now() > deadline) throw error;
    }
  }
}

step("a notification that belongs to no call", (s) => announced(s, "to whom it may concern"), sessionStreams);

step(
  "elicitation, accepted, declined and cancelled",
  async (s) => {
    const since = s.asked.length;
    s.elicit = { action: "accept", content: { name: "Ada Lovelace" } };
    assert.equal(textOf(await s.call("ask", { how: "elicit" })), "accept Ada Lovelace");
    const asked = await s.waitAsked("elicitation/create", undefined, since);
    assert.ok(asked.requestedSchema.properties.name, JSON.stringify(asked));
    for (const action of ["decline", "cancel"]) {
      s.elicit = { action };
      assert.equal(textOf(await s.call("ask", { how: "elicit" })), action);
    }
  },
  asks,
);

step(
  "sampling on the stream of the session",
  async (s) => {
    await announced(s, "before the sampling");
    const got = textOf(await s.call("ask", { how: "sample" }));
    assert.equal(got, "test-model: answer to <who are you>");
    assert.equal((await s.waitAsked("sampling/createMessage")).maxTokens, 77);
  },
  sessionStreams,
);

step("ping", async (s) => {
  assert.deepEqual(plain(await s.client.ping()), {});
});

step("the upstream gets its own token and never the edge's", async (s) => {
  const got = JSON.parse(textOf(await s.call("headers")));
  const { token } = cell.upstream;
  assert.equal(got.authorization, token ? `Bearer ${token}` : undefined);
  assert.ok(!cell.edge || !JSON.stringify(got).includes(cell.token), "the edge's token went on");
});

step(
  "a cancelled call leaves the session usable",
  async (s) => {
    const stop = new AbortController();
    const options = { signal: stop.signal, onprogress: () => stop.abort("enough") };
    const cancelled = s.call("progress", { steps: 30 }, options);
    await assert.rejects(within(5000, cancelled, "no end after the cancel"), /enough/);
    await within(5000, s.call("echo", { text: "after" }), "no echo after the cancel");
    await within(5000, s.client.ping(), "no ping after the cancel");
  },
  callStreams,
);

step("a second session sees nothing of the first", async (s) => {
  const other = await sdk.connect(cell);
  try {
    if (sessionStreams()) {
      await announced(other, "mine");
      await announced(s, "heard by the first");
    }
    const before = other.notes.length;
    await s.call("progress", { steps: 3 }, { onprogress: () => {} });
    await s.call("log", { level: "error" });
    if (sessionStreams()) {
      await announced(s, "not for the second");
      await s.call("ask", { how: "sample" });
      // Its own stream delivers in order: what was meant for it before would be there.
      await announced(other, "mine again");
    }
    const leaked = other.notes.slice(before).filter((n) => !String(n.params.data).includes("mine"));
    assert.deepEqual([...leaked, ...other.asked], []);
    assert.equal(textOf(await other.call("echo", { text: "mine" })), "Echo: mine");
  } finally {
    await other.close();
  }
});

// What the same SDK gets from the upstream without the edge.
async function reference() {
  const { speaks, url, token } = cell.upstream;
  const kind = speaks === "sse" ? "sse" : "http";
  const s = await connectTo(sdk, { ...cell, kind, url, token });
  const wanted = { initialize: handshake(s), tools: await tools(s) };
  for (const [name, call] of Object.entries(FAITHFUL)) wanted[name] = await answer(s, call);
  await s.close();
  return wanted;
}

await walk(sdk, cell, plan(steps, cell), reference);
