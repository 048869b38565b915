// Walks the steps of a cell through one session after another; the twin of walk.py.

import { setTimeout as sleep } from "node:timers/promises";

const STEP_TIMEOUT = 30000;
// Each of these is a line end to somebody.
export const ODD_TEXT =
  "naïve \u2028 line \u2029 para \u0085 nel \r\n crlf \n\n data: x \u0000 \u{1f980} \ufeff end";
const CLOSES = "the session closes cleanly";

// The steps that the cell needs, after their names have been printed.
export function plan(steps, cell) {
  const planned = steps.filter((s) => s.needs() && (!cell.only || s.name.includes(cell.only)));
  console.log(JSON.stringify({ plan: [...planned.map((s) => s.name), CLOSES] }));
  return planned;
}

export async function walk(sdk, cell, planned, reference) {
  const wanted = await reference();
  const left = [...planned];
  let closed = "";
  while (left.length) {
    let s;
    try {
      s = await connectTo(sdk, cell);
    } catch (error) {
      closed = explain(error);
      report(left.shift().name, false, 0, `no session: ${closed}`);
      for (const { name } of left.splice(0)) report(name, false, 0, "no session");
      break;
    }
    // A session in which a check failed is given up; the next check starts on a fresh one.
    let healthy = true;
    while (left.length && healthy) healthy = await run(left.shift(), s, wanted);
    try {
      await within(10000, s.close(), "no close within 10 s");
    } catch (error) {
      if (healthy) closed = explain(error);
    }
  }
  report(CLOSES, !closed, 0, closed);
  process.exit(0);
}

async function run({ name, run }, s, wanted) {
  const started = Date.now();
  let problem = "";
  try {
    await within(STEP_TIMEOUT, run(s, wanted), `not done within ${STEP_TIMEOUT} ms`);
    if (s.faults.length) problem = `the transport reported ${s.faults}`;
  } catch (error) {
    problem = explain(error);
  }
  report(name, !problem, (Date.now() - started) / 1000, problem);
  return !problem;
}

function report(check, ok, seconds = 0, detail = "") {
  console.log(JSON.stringify({ check, ok, seconds: Math.round(seconds * 100) / 100, detail }));
}

function explain(error) {
  if (error?.code === "ERR_ASSERTION") return error.message;
  const cause = error?.cause ? ` (cause: ${error.cause})` : "";
  return `${error?.stack ?? error}${cause}`.split("\n").slice(0, 4).join(" < ");
}

export function connectTo(sdk, cell) {
  return within(20000, sdk.connect(cell), "no session within 20 s");
}

export async function within(timeout, promise, complaint) {
  const stop = new AbortController();
  const late = sleep(timeout, null, { signal: stop.signal }).then(() => {
    throw new Error(complaint);
  });
  late.catch(() => {});
  try {
    return await Promise.race([promise, late]);
  } finally {
    stop.abort();
  }
}

export async function answer(session, call) {
  try {
    return plain({ result: await call(session) });
  } catch (error) {
    return plain({ error: [error.code, error.message, error.data] });
  }
}

export async function pages(list, key) {
  const found = [];
  let cursor;
  do {
    const page = await list(cursor ? { cursor } : undefined);
    found.push(...page[key]);
    cursor = page.nextCursor;
  } while (cursor);
  return plain(found);
}

export function handshake(s) {
  return plain({
    server: s.client.getServerVersion(),
    capabilities: s.client.getServerCapabilities(),
    instructions: s.client.getInstructions(),
  });
}

// Drops what only the SDK adds and what JSON does not know, such as undefined.
export const plain = (value) => JSON.parse(JSON.stringify(value));

export const textOf = (result, index = 0) => result.content[index].text;
