"""Rows "handshake", "connections", "descriptors exhausted" and "memory": the door, before any request."""

import asyncio
import resource
import time
from pathlib import Path

from edge import RAISED
from good import Crowd, calls, said
from wire import Connection, encode, headers, request, trust

# A record of a handshake: a ClientHello that begins, of 512 bytes and of 16 MiB.
HELLO = bytes.fromhex("16030102000100 01fc0303".replace(" ", ""))
HUGE = bytes.fromhex("160301400001fffffb0303") + bytes(16384 - 6)
MORE = bytes.fromhex("1603034000") + bytes(16384)
HALVES = 5000
IDLE = 1000


def source(number):
    return f"127.0.{number // 250}.{1 + number % 250}"


async def plain(port, address=None):
    local = (address, 0) if address else None
    return await asyncio.open_connection("127.0.0.1", port, local_addr=local, limit=1024)


async def slow_handshakes(start, _binary):
    edge = start()

    async def one(drip):
        reader, writer = await plain(edge.port)
        begun = time.monotonic()

        async def write():
            for byte in drip:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.3)

        writing = asyncio.ensure_future(write())
        try:
            while await asyncio.wait_for(reader.read(1024), 30):
                pass
        except ConnectionError:
            pass
        writing.cancel()
        writer.close()
        return time.monotonic() - begun

    try:
        silent, partial, dripping = await asyncio.gather(
            one(b""), one(HELLO[:3]), one(HELLO + bytes(500))
        )
    finally:
        edge.stop()
    times = {"silent": silent, "partial": partial, "dripping": dripping}
    return [
        (f"handshake: a {name} peer is ended", f"{took:.1f} s", "within 10 s", took < 10.5)
        for name, took in times.items()
    ]


async def huge_hellos(start, _binary):
    edge = start()
    before, most, sent = edge.memory(), 0, []

    async def one():
        reader, writer = await plain(edge.port)
        written = 0
        try:
            for piece in [HUGE] + [MORE] * 1023:
                writer.write(piece)
                await asyncio.wait_for(writer.drain(), 15)
                written += len(piece)
        except (ConnectionError, TimeoutError):
            pass
        sent.append(written)
        writer.close()

    try:
        everybody = asyncio.gather(*(one() for _ in range(20)))
        while not everybody.done():
            most = max(most, edge.memory() - before)
            await asyncio.sleep(0.01)
        await everybody
    finally:
        edge.stop()
    return [
        ("handshake: 20 hellos of 16 MiB at once: memory", f"{most:+} MiB", "under 32 MiB", most < 32),
        ("handshake: the most that one of them could send", f"{max(sent) // 1024} KiB",
         "64 KiB, and what the socket holds", max(sent) < 8 * 1024 * 1024),
    ]


async def one_address(start, _binary):
    edge = start()
    try:
        pairs = [await plain(edge.port) for _ in range(200)]
        await asyncio.sleep(0.5)
        held = sum(not reader.at_eof() for reader, _ in pairs)
        for _, writer in pairs:
            writer.close()
    finally:
        edge.stop()
    return [("connections: held from one address, of 200", held, "20", held <= 20)]


async def crowd_of_halves(port, _ca, _token, told, _number):
    """So many half handshakes; whoever is closed comes again."""

    async def one(number):
        while True:
            try:
                reader, writer = await plain(port, source(number % 2000))
                writer.write(HELLO)
                await reader.read(1024)
                writer.close()
            except OSError:
                pass
            await asyncio.sleep(0.2)

    everybody = [asyncio.ensure_future(one(number)) for number in range(HALVES)]
    await asyncio.sleep(3)
    told.put("there")
    await asyncio.gather(*everybody)


async def half_handshakes(start, _binary):
    edge = start("--requests-per-second=1000", "--burst=1000")
    crowd = Crowd(edge, crowd_of_halves)
    try:
        await crowd.first()
        figures = await calls(edge, 15, 0.1, keep=False)
    finally:
        crowd.end()
        edge.stop()
    good, p99, text = said(figures)
    return [(f"connections: a good client that connects anew beside {HALVES} half handshakes", text,
             "100 %, p99 under 500 ms", good == 100 and p99 < 500)]


def pss(edge):
    for line in Path(f"/proc/{edge.pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


async def idle_connections(start, _binary):
    many = ["--connections-per-ip=5000", "--max-connections=5000", "--header-timeout=60s",
            "--tls-handshake-timeout=60s", "--requests-per-second=100000", "--burst=100000"]
    edge = start(*many)
    try:
        context = trust(edge.ca)
        body = encode(request(1, "tools/list"))

        async def used():
            connection = await Connection.open(edge.port, context)
            connection.send("POST", "/mcp", headers(edge.token), body)
            await (await connection.response()).body()
            return connection

        held = [await used() for _ in range(50)]
        await asyncio.sleep(1)
        begun = pss(edge)
        held += [await used() for _ in range(IDLE)]
        await asyncio.sleep(1)
        tls = (pss(edge) - begun) / IDLE
        begun = pss(edge)
        held += [await plain(edge.port) for _ in range(IDLE)]
        await asyncio.sleep(1)
        tcp = (pss(edge) - begun) / IDLE
    finally:
        edge.stop()
    return [
        (f"memory: each of {IDLE} idle TLS connections, after a request", f"{tls:.1f} KiB", "30 kB", tls * 1.024 <= 30),
        (f"memory: each of {IDLE} idle TCP connections", f"{tcp:.1f} KiB", "16 kB", tcp * 1.024 <= 16),
    ]


def cpu(edge):
    """Seconds of CPU that it has used."""
    fields = Path(f"/proc/{edge.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


async def answered(edge, context):
    """Seconds that a newcomer waits for an answer."""
    begun = time.monotonic()
    connection = await Connection.open(edge.port, context)
    connection.send("POST", "/mcp", headers(edge.token), encode(request(1, "tools/list")))
    assert (await connection.response()).status == 200
    return time.monotonic() - begun


async def descriptors_exhausted(start, binary):
    wrapper = Path(__file__).with_name("limited")
    edge = start(*RAISED, through=[str(wrapper), "100"])
    held = []
    try:
        context = trust(edge.ca)
        for number in range(120):
            held.append(await plain(edge.port, source(number)))
        await asyncio.sleep(0.5)
        full, used = edge.descriptors(), cpu(edge)
        await asyncio.sleep(3)
        used = (cpu(edge) - used) / 3
        for number in range(120, 240):
            held.append(await plain(edge.port, source(number)))
        beside = await answered(edge, context)
        for _, writer in held:
            writer.close()
        took = await answered(edge, context)
    finally:
        edge.stop()
    return [
        (f"descriptors exhausted ({full} of 100): CPU meanwhile", f"{used * 100:.0f} %", "no spinning (10 %)", used < 0.1),
        ("descriptors exhausted: a newcomer behind 120 silent ones is answered", f"after {beside:.2f} s", "within 2 s", beside < 2),
        ("descriptors exhausted: answers again", f"after {took:.2f} s", "within 2 s", took < 2),
    ]


def raise_descriptors():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


ROWS = [slow_handshakes, huge_hellos, one_address, half_handshakes, idle_connections, descriptors_exhausted]
