// Chromium's pages against the edge: those of an allowed origin, of a foreign one, and of none.
//
// The cell comes as JSON in CELL (see browser.py), results go out as one JSON line per check. Every
// page is served here, on 127.0.0.1; app.test and evil.test are names for that in Chromium alone.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

import { build } from "esbuild";
import { chromium } from "playwright-core";

const cell = JSON.parse(process.env.CELL);
const LIMIT = 30000;
const here = fileURLToPath(new URL(".", import.meta.url));

const bundled = await build({
  entryPoints: [join(here, "page.mjs")], bundle: true, write: false, platform: "browser",
  format: "iife", target: "chrome120", logLevel: "error",
});
const script = bundled.outputFiles[0].text;
const FRAMED = '<iframe sandbox="allow-scripts" src="/framed"></iframe>';
const html = (body = "") => `<!doctype html><title>page</title><script src="page.js"></script>${body}`;

const pages = createServer((asked, answer) => {
  if (asked.url === "/page.js") {
    answer.setHeader("Content-Type", "text/javascript").end(script);
  } else if (asked.url === "/favicon.ico") {
    answer.writeHead(404).end();
  } else {
    answer.setHeader("Content-Type", "text/html").end(html(asked.url === "/frames" ? FRAMED : ""));
  }
});
await new Promise((resolve) => pages.listen(cell.port, "127.0.0.1", resolve));
const kept = join(cell.directory, "page.html");
writeFileSync(kept, html());
writeFileSync(join(cell.directory, "page.js"), script);

// Names: ours to 127.0.0.1, those of the machine as they are, all others to nothing.
const RULES =
  "MAP app.test 127.0.0.1, MAP evil.test 127.0.0.1, EXCLUDE localhost, EXCLUDE 127.0.0.1, MAP * ~NOTFOUND";
const open = (home, profile, ...more) =>
  chromium.launchPersistentContext(join(cell.directory, profile), {
    executablePath: cell.chromium, headless: true, chromiumSandbox: false, timeout: LIMIT,
    env: { HOME: home, PATH: process.env.PATH, LANG: "C.UTF-8", SUITE_MARK: process.env.SUITE_MARK ?? "" },
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
      "--disable-background-networking", "--disable-component-update", `--host-resolver-rules=${RULES}`,
      ...more,
    ],
  });

const app = `http://app.test:${cell.port}`;
const evil = `http://evil.test:${cell.port}`;
const trusting = await open(cell.home, "profile");

function edge(name) {
  const found = cell.edges[name];
  if (found.error) throw new Error(`its edge does not start: ${found.error}`);
  return found;
}

// Runs a function of page.mjs in a fresh page. `heard` is what the network said meanwhile.
async function within(url, run, { context = trusting, frame = false } = {}) {
  const page = await context.newPage();
  page.setDefaultTimeout(LIMIT);
  const heard = [];
  const devtools = await context.newCDPSession(page);
  await devtools.send("Network.enable");
  devtools.on("Network.responseReceived", ({ response, type }) =>
    heard.push({ url: response.url, status: response.status, protocol: response.protocol, type }),
  );
  devtools.on("Network.loadingFailed", ({ errorText, type }) => heard.push({ error: errorText, type }));
  try {
    await page.goto(url);
    const target = frame ? page.frames().find((f) => f !== page.mainFrame()) : page;
    await target.waitForFunction("globalThis.suite");
    const call = (name, ...more) =>
      target.evaluate(([name, more]) => globalThis.suite[name](...more), [name, more]);
    return await run(call, heard, target);
  } finally {
    await page.close();
  }
}

const is = (heard, url) => heard.filter((h) => h.url?.startsWith(url));
const BLOCKED = /^TypeError: Failed to fetch/;

async function refusedTo(url, name, options = {}) {
  await within(url, async (call) => {
    assert.match((await call("refused", edge(name))) ?? "the page got its answer", BLOCKED);
  }, options);
}

function listed({ status, json }) {
  assert.equal(status, 200);
  assert.ok(json.result.tools.some((t) => t.name === "echo"), JSON.stringify(json));
}

// Bodies that are refused by their head: too long, with a wrong token, path or type.
const TOO_LONG = 10600000;
const LONG = 1100000;

function refusals(context, protocol) {
  const served = edge("listed");
  const asked = [
    [413, served, TOO_LONG],
    [401, { ...served, token: "x".repeat(43) }, LONG],
    [404, served, LONG, { path: "/nowhere" }],
    [415, served, LONG, { type: "text/plain" }],
  ];
  return within(app, async (call, heard) => {
    const found = [];
    for (const [, ...what] of [...asked, ...asked]) {
      try {
        const { status, json } = await call("large", ...what);
        found.push(json?.error ? status : `${status} without a reason`);
      } catch (error) {
        found.push(`${error.message.split("\n")[0]} ${JSON.stringify(heard.at(-1))}`);
      }
    }
    const statuses = asked.map(([status]) => status);
    assert.deepEqual(found, [...statuses, ...statuses]);
    const protocols = new Set(is(heard, served.base).map((h) => h.protocol));
    assert.deepEqual([...protocols], [protocol]);
  }, { context });
}

const checks = {
  "Chromium trusts the edge by its CA alone, and speaks HTTP/2": async () => {
    await within(app, async (call, heard) => {
      listed(await call("bare", edge("listed")));
      const found = is(heard, edge("listed").url);
      assert.deepEqual([...new Set(found.map((h) => h.protocol))], ["h2"], JSON.stringify(heard));
    });
    const distrusting = await open(cell.strange, "profile-without-ca");
    try {
      await within(app, async (call, heard) => {
        assert.match(await call("refused", edge("listed")), BLOCKED);
        const errors = heard.map((h) => h.error).filter(Boolean);
        assert.ok(errors.includes("net::ERR_CERT_AUTHORITY_INVALID"), JSON.stringify(heard));
      }, { context: distrusting });
    } finally {
      await distrusting.close();
    }
  },

  "a page of an allowed origin reads Mcp-Session-Id, and a 401 with its challenge": () =>
    within(app, async (call) => {
      const { session, seen } = await call("streamed", edge("listed"));
      assert.match(session.session, /^[!-~]{43,}$/);
      assert.equal(session.answer.result.serverInfo.name, "mcp-servers/everything");
      assert.equal(session.accepted, 202);
      assert.ok(seen.includes("result"), seen.join());
      const wrong = await call("bare", { ...edge("listed"), token: "x".repeat(43) });
      assert.equal(wrong.status, 401);
      assert.match(wrong.fields["www-authenticate"], /^Bearer .*invalid_token/);
      assert.ok(wrong.json.error, wrong.text);
    }),

  "a page reads X-Request-Id": () =>
    within(app, async (call) => {
      const { fields } = await call("bare", edge("listed"));
      assert.ok(fields["x-request-id"], JSON.stringify(fields));
    }),

  "fetch streams the answer of a call: events come while the call runs": () =>
    within(app, async (call) => {
      const { seen, type, ended } = await call("streamed", edge("listed"));
      assert.match(type, /^text\/event-stream/);
      assert.deepEqual(seen.filter((s) => s !== "ping"), [1, 2, 3, 4, "result"]);
      assert.ok(seen.indexOf("ping") < seen.indexOf("result"), seen.join());
      assert.ok([200, 204].includes(ended), `DELETE: ${ended}`);
    }),

  "a GET stream read by fetch, and the same event again with Last-Event-ID": () =>
    within(app, async (call) => {
      const { statuses, first, second } = await call("listened", edge("listed"));
      assert.deepEqual(statuses, [200, 202, 200]);
      assert.deepEqual(second, first);
    }),

  "HTTP+SSE read by fetch": () =>
    within(app, async (call) => {
      const { event, statuses, found } = await call("legacy", edge("listed"));
      assert.equal(event, "endpoint");
      assert.deepEqual(statuses, [202, 202, 202]);
      assert.deepEqual(found.filter((id) => id !== undefined).slice(-2), [0, 1]);
    }),

  "EventSource: HTTP+SSE without a token where that is allowed; else an error": () =>
    within(app, async (call) => {
      assert.deepEqual(await call("source", edge("open")), { ids: [0, 1] });
      assert.deepEqual(await call("source", edge("listed")), { ids: [], error: "closed" });
    }),

  ...Object.fromEntries(
    [[1, "http"], [1, "sse"], [2, "http"], [2, "sse"]].map(([major, kind]) => [
      `the TypeScript SDK ${major}.x, bundled for browsers, over ${kind}`,
      () =>
        within(app, async (call) => {
          const { server, tools, text, progress } = await call("sdk", edge("listed"), major, kind);
          assert.equal(server, "mcp-servers/everything");
          assert.ok(tools.includes("echo"), tools.join());
          assert.match(text, /Steps: 3/);
          // The SDK may lose the last ones, see session.mjs.
          assert.ok(progress.length > 0, "no progress");
          assert.deepEqual(progress, [1, 2, 3].slice(0, progress.length));
        }),
    ]),
  ),

  "429: a page reads Retry-After": () =>
    within(app, async (call) => {
      const found = await call("burst", edge("limited"), 40);
      const refused = found.filter((f) => f.status !== 200);
      assert.ok(refused.length > 0 && refused.length < 41, `${refused.length} of 41 were refused`);
      for (const { status, fields, text } of refused) {
        assert.equal(status, 429, text);
        assert.ok(Number(fields["retry-after"]) >= 1, JSON.stringify(fields));
      }
    }),

  "refusals before the body has come reach the page, over HTTP/2": () => refusals(trusting, "h2"),

  "refusals before the body has come reach the page, over HTTP/1.1": async () => {
    const older = await open(cell.home, "profile-http1", "--disable-http2");
    try {
      await refusals(older, "http/1.1");
    } finally {
      await older.close();
    }
  },

  "a page may send a header field that the operator forwards": () =>
    within(app, async (call) => {
      const { status, text } = await call("bare", edge("forwarding"), { "X-User-Role": "admin" });
      assert.equal(status, 200, text);
      const refused = await call("refused", edge("forwarding"), { "X-Not-Forwarded": "1" });
      assert.match(refused ?? "the page got its answer", BLOCKED);
    }),

  "a page of a foreign origin gets no answer": async () => {
    for (const name of ["listed", "open"]) await refusedTo(evil, name);
  },

  "a page of a foreign origin reaches nothing on an edge without a token": () =>
    within(evil, async (call, heard) => {
      const { url, base } = edge("guarded");
      await call("blind", edge("guarded"));
      const { error } = await call("source", edge("guarded"));
      assert.equal(error, "closed");
      await call("embed", edge("guarded"));
      const served = is(heard, base).filter((h) => h.status !== 403 && h.status !== 415);
      assert.deepEqual(served, [], url);
      const refused = is(heard, base).filter((h) => h.status === 403);
      assert.ok(refused.length >= 5, JSON.stringify(heard));
    }),

  "pages without an origin (sandboxed, from a file) get no answer": async () => {
    await refusedTo(`${app}/frames`, "listed", { frame: true });
    await refusedTo(pathToFileURL(kept).href, "listed");
  },

  "pages without an origin are served with --allow-origin null and a token": async () => {
    const serve = async (call) => {
      listed(await call("bare", edge("null")));
      const wrong = await call("bare", { ...edge("null"), token: "x".repeat(43) });
      assert.equal(wrong.status, 401);
    };
    await within(`${app}/frames`, serve, { frame: true });
    await within(pathToFileURL(kept).href, serve);
    await refusedTo(evil, "null");
  },
};

const planned = Object.keys(checks).filter((name) => name.includes(cell.only ?? ""));
console.log(JSON.stringify({ plan: [...planned, ...cell.more] }));
for (const check of planned) {
  const started = Date.now();
  let detail = "";
  try {
    await checks[check]();
  } catch (error) {
    detail = `${error?.stack ?? error}`.split("\n").slice(0, 6).join(" < ");
  }
  const seconds = Math.round((Date.now() - started) / 10) / 100;
  console.log(JSON.stringify({ check, ok: !detail, seconds, detail }));
}
await trusting.close();
process.exit(0);
