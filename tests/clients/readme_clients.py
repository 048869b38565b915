"""What README.md and certs/README.md tell people to put into their clients, tried by readme.py."""

import ast
import json
import re
import ssl
import subprocess
import textwrap
import urllib.request
from pathlib import Path

from edge import HERE, WORK

PROGRAMS = WORK / "programs/node_modules"
PY = {1: str(WORK / "py1/bin/python"), 2: str(WORK / "py2/bin/python")}
LIMIT = 60

USED = """
import asyncio, os
import {httpx}
from mcp import ClientSession
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

async def use(read, write):
    async with ClientSession(read, write) as session:
        await session.initialize()
        assert "echo" in [tool.name for tool in (await session.list_tools()).tools]
        print("used")

async def main():
{snippet}

asyncio.run(main())
"""
SCRIPT = """
import {{ {names} }} from "{module}";
{imports}
const transport = {snippet}
const client = new Client({{ name: "readme", version: "1" }});
await client.connect(transport);
if (!(await client.listTools()).tools.some((tool) => tool.name === "echo")) throw new Error("no echo");
await client.close();
process.exit(0);
"""


def script(machine, argv, text, name):
    """Runs a program that a snippet became, and returns what it prints."""
    path = machine.directory / name
    path.write_text(text)
    environment = {**machine.environment, "NODE_EXTRA_CA_CERTS": str(machine.ca)}
    done = subprocess.run(
        [*argv, str(path)], cwd=HERE, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=LIMIT,
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout[-400:]}\n{done.stderr[-1200:]}"
    return done.stdout


def filled(machine, text):
    """A snippet with the URL and the token of this machine."""
    return machine.mapped(text.replace("Bearer TOKEN", f"Bearer {machine.token}"))


def connects(machine, found):
    """What a client does with a server's entry in its settings."""
    if "command" in found:
        assert found["command"] == "npx" and found["args"][:2] == ["-y", "mcp-remote"], found
        remote = ["node", str(PROGRAMS / ".bin/mcp-remote"), *found["args"][2:]]
        opening = {"command": remote[0], "args": remote[1:], "env": {**machine.environment, **found["env"]}}
        opening["env"]["NODE_EXTRA_CA_CERTS"] = str(machine.ca)
        text = textwrap.dedent(f"""
            import asyncio
            from mcp import ClientSession, StdioServerParameters
            from mcp.client.stdio import stdio_client
            async def main():
                async with stdio_client(StdioServerParameters(**{opening!r})) as (read, write):
                    async with ClientSession(read, write) as session:
                        await session.initialize()
                        assert "echo" in [t.name for t in (await session.list_tools()).tools]
            asyncio.run(main())
        """)
        script(machine, [PY[1]], text, "snippet-stdio.py")
        return
    assert found["url"] == f"{machine.base}/mcp", found["url"]
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).encode()
    fields = {"Content-Type": "application/json", **found["headers"]}
    asked = urllib.request.Request(found["url"], data=body, headers=fields)
    context = ssl.create_default_context(cafile=str(machine.ca))
    with urllib.request.urlopen(asked, timeout=LIMIT, context=context) as answer:
        names = [tool["name"] for tool in json.load(answer)["result"]["tools"]]
    assert "echo" in names, names


def settings_json(machine, text):
    """Several files in one block, each after a comment that names it."""
    files = [part for part in re.split(r"(?m)^// .*$", text) if part.strip()]
    assert files, "no file"
    for part in files:
        settings = json.loads(filled(machine, part))
        (servers,) = settings.values()
        for found in servers.values():
            connects(machine, found)


def settings_yaml(machine, text):
    source = f'import {{ readFileSync }} from "node:fs"; import yaml from "{PROGRAMS}/yaml/dist/index.js";'
    source += 'console.log(JSON.stringify(yaml.parse(readFileSync(process.argv[2], "utf8"))));'
    parser = machine.directory / "yaml.mjs"
    parser.write_text(source)
    settings = json.loads(script(machine, ["node", str(parser)], filled(machine, text), "snippet.yaml"))
    for found in settings["mcpServers"].values():
        assert found["type"] == "streamable-http", found
        connects(machine, found)


def python(machine, text):
    text = filled(machine, text)
    for version, httpx in ((1, "httpx"), (2, "httpx2")):
        # As the comment of the snippet says.
        ours = text if version == 1 else text.replace("httpx.", "httpx2.").replace(", write, _)", ", write)")
        ours = re.sub(r"(?m)^( +)\.\.\.$", r"\1await use(read, write)", ours)
        whole = USED.format(httpx=httpx, snippet=textwrap.indent(ours, "    "))
        ast.parse(whole)
        printed = script(machine, [PY[version]], whole, f"snippet{version}.py")
        assert printed.count("used") == 2, printed


def typescript(machine, text):
    text = "\n".join(l for l in filled(machine, text).splitlines() if not l.startswith("//"))
    sdk = f"{HERE}/node_modules/@modelcontextprotocol"
    for kind, module in (
        ("StreamableHTTPClientTransport", "streamableHttp"), ("SSEClientTransport", "sse"),
    ):
        ours = text.replace("StreamableHTTPClientTransport", kind)
        ours = ours if module != "sse" else ours.replace("/mcp", "/sse")
        first = SCRIPT.format(
            names=kind, module=f"{sdk}/sdk/dist/esm/client/{module}.js", snippet=ours,
            imports=f'import {{ Client }} from "{sdk}/sdk/dist/esm/client/index.js";',
        )
        script(machine, ["node"], first, f"snippet1-{module}.mjs")
        entry = json.loads((Path(sdk) / "client/package.json").read_text())["exports"]["."]["import"]
        entry = entry if isinstance(entry, str) else entry["default"]
        second = SCRIPT.format(
            names=f"Client, {kind}", module=str(Path(sdk) / "client" / entry), snippet=ours, imports="",
        )
        script(machine, ["node"], second, f"snippet2-{module}.mjs")


SNIPPETS = {"jsonc": settings_json, "yaml": settings_yaml, "python": python, "ts": typescript}
# Languages of blocks in which there is nothing to run.
PICTURES = {"text"}


# --- certs/README.md --------------------------------------------------------------------------


def trusted(machine, client, how):
    """A row of the table that says how a client is told of the CA."""
    told = re.findall(r"`([^`]+)`", how)[0] if "`" in how else ""
    told = told.replace("/full/path/of/", f"{machine.here}/")
    url = f"{machine.base}/livez"
    program = {
        "Node": f"{told} node -e 'fetch(\"{url}\").then((r) => process.exit(r.status - 200))'",
        "Python": f"{told} {PY[1]} -c 'import httpx; assert httpx.get(\"{url}\").status_code == 200'",
        "curl": f"curl -fsS {told} {url}",
    }
    name = client.split()[0]
    if name == "browsers":
        assert "`ca.pem`" in how, how
        return "the cell browser does this"
    environment = machine.environment
    machine.environment = {
        k: v for k, v in environment.items()
        if k not in ("NODE_EXTRA_CA_CERTS", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
    }
    try:
        machine.shell(program[name])
        # And the CA it is that makes the difference.
        failed = subprocess.run(
            ["bash", "-c", program[name].replace(told, "")], cwd=machine.here, timeout=LIMIT,
            env=machine.environment, stdin=subprocess.DEVNULL, capture_output=True,
        )
        assert failed.returncode != 0, f"{name} trusts the edge without being told to"
    finally:
        machine.environment = environment


def rows(prose):
    """The rows of the table of clients: (line, client, how)."""
    inside = False
    for number, line in prose:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells == ["client", "how"]:
            inside = True
        elif inside and not line.startswith("|"):
            return
        elif inside and not cells[0].startswith("---"):
            yield number, cells[0], cells[1]
