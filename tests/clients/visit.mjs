// One short visit with the TypeScript SDK 1.x, as Claude Code makes it: list the tools, call one.
//
// CELL is as in steps.mjs, with the `tool` and its `arguments`. Prints {"tools", "text"}.

import { connect } from "./sdk1.mjs";

const cell = JSON.parse(process.env.CELL);
const session = await connect(cell);
const { tools } = await session.client.listTools();
const result = await session.call(cell.tool, cell.arguments);
await session.close();
console.log(JSON.stringify({ tools: tools.map((t) => t.name), text: result.content[0].text }));
process.exit(0);
