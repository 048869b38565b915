"""Row "strangers": clients that are 60 ms away get in beside a flood of bare connections.

The edge, the flood and the clients each have a network namespace. The clients' packets go through
two TUN devices and wait 30 ms on each way (`far`), which needs no module of the kernel as `tc netem`
does. Root, iproute2 and /dev/net/tun, else SKIPPED.

Also run by itself, for one of its parts: strangers.py flood|clients|far …
"""

import asyncio
import collections
import contextlib
import fcntl
import os
import select
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import time

HERE = os.path.abspath(__file__)
ADDRESS, FLOOD, CLIENTS = "10.87.0.1", "10.87.0.2", "10.86.0.2"
RATE, SECONDS, COUNT, ONE_WAY = 3000, 10, 20, 0.03
# The head of a record, and of a hello that it says to be longer.
HALF = bytes.fromhex("16030102000100" "01fc0303")
SOURCES = {
    "one /24": [f"10.88.0.{last}" for last in range(1, 251)],
    "250 /24s": [f"10.89.{net}.1" for net in range(1, 251)],
}
KINDS = [("one /24", "silent"), ("250 /24s", "silent"), ("one /24", "half a hello")]


# --- the parts, each in a namespace ------------------------------------------------------------


def flood(port, where, what):
    """Opens so many connections a second; closes those that the edge has closed."""
    poll, open_, begun, opened = select.epoll(), {}, time.monotonic(), 0
    sources = SOURCES[where]
    while (now := time.monotonic()) - begun < SECONDS:
        while opened < (now - begun) * RATE:
            one = socket.socket()
            one.setblocking(False)
            with contextlib.suppress(AttributeError, OSError):
                one.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
            one.bind((sources[opened % len(sources)], 0))
            one.connect_ex((ADDRESS, int(port)))
            open_[one.fileno()] = one
            poll.register(one, select.EPOLLIN | (select.EPOLLOUT if what != "silent" else 0))
            opened += 1
        for number, events in poll.poll(0.001):
            if events & select.EPOLLOUT and not events & (select.EPOLLHUP | select.EPOLLERR):
                with contextlib.suppress(OSError):
                    open_[number].send(HALF)
                poll.modify(number, select.EPOLLIN)
            else:
                poll.unregister(number)
                open_.pop(number).close()
    print(opened)


async def clients(port, ca, token):
    """How many of the clients get an answer to a call within 10 s, one attempt each."""
    context = ssl.create_default_context(cafile=ca)
    body = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
    head = (
        f"POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()

    async def one(number):
        await asyncio.sleep(number * 0.1)
        begun = time.monotonic()
        try:
            async with asyncio.timeout(10):
                reader, writer = await asyncio.open_connection(
                    ADDRESS, int(port), ssl=context, server_hostname="localhost"
                )
                writer.write(head + body)
                line = await reader.readline()
                writer.close()
                return b" 200 " in line, time.monotonic() - begun
        except (OSError, TimeoutError):
            return False, time.monotonic() - begun

    found = await asyncio.gather(*(one(number) for number in range(COUNT)))
    times = sorted(took for good, took in found if good)
    print(len(times), f"{times[len(times) // 2] if times else 0:.2f}")


def far(*names):
    """Carries packets between the TUN devices of two namespaces, each of them late."""
    ends = []
    for name in names:
        space = os.open(f"/run/netns/{name}", os.O_RDONLY)
        os.setns(space, 0) if hasattr(os, "setns") else setns(space)
        end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        # TUNSETIFF with IFF_TUN | IFF_NO_PI.
        fcntl.ioctl(end, 0x400454CA, struct.pack("16sH22x", b"far", 0x1001))
        ends.append(end)
    print("ready", flush=True)
    late = collections.deque()
    while True:
        wait = max(0, late[0][0] - time.monotonic()) if late else 1
        ready, _, _ = select.select(ends, [], [], wait)
        for end in ready:
            with contextlib.suppress(BlockingIOError):
                while True:
                    packet = os.read(end, 65536)
                    other = ends[1 - ends.index(end)]
                    late.append((time.monotonic() + ONE_WAY, other, packet))
        while late and late[0][0] <= time.monotonic():
            _, other, packet = late.popleft()
            with contextlib.suppress(OSError):
                os.write(other, packet)


def setns(descriptor):
    import ctypes

    if ctypes.CDLL(None, use_errno=True).setns(descriptor, 0):
        raise OSError(ctypes.get_errno(), "setns")


# --- the row -----------------------------------------------------------------------------------


def ip(*words, space=None):
    inside = ["-n", space] if space else []
    subprocess.run(["ip", *inside, *words], check=True, capture_output=True)


def inside(space, *words):
    return ["ip", "netns", "exec", space, *words]


@contextlib.contextmanager
def spaces():
    """Namespaces for the edge, the flood and the clients, joined."""
    names = [f"mcp-edge-{os.getpid()}-{part}" for part in ("edge", "flood", "clients")]
    edge, crowd, few = names
    carrier = None
    try:
        for name in names:
            ip("netns", "add", name)
            ip("link", "set", "lo", "up", space=name)
        ip("link", "add", "near", "netns", edge, "type", "veth", "peer", "near", "netns", crowd)
        ip("address", "add", f"{ADDRESS}/32", "dev", "near", space=edge)
        for sources in SOURCES.values():
            for source in sources:
                ip("address", "add", f"{source}/32", "dev", "lo", space=crowd)
        ip("address", "add", f"{FLOOD}/32", "dev", "near", space=crowd)
        for name in (edge, crowd):
            ip("link", "set", "near", "up", space=name)
        ip("route", "add", f"{FLOOD}/32", "dev", "near", space=edge)
        for net in ("10.88.0.0/16", "10.89.0.0/16"):
            ip("route", "add", net, "via", FLOOD, space=edge)
        ip("route", "add", f"{ADDRESS}/32", "dev", "near", space=crowd)
        carrier = subprocess.Popen(
            [sys.executable, HERE, "far", edge, few], stdout=subprocess.PIPE, text=True
        )
        assert carrier.stdout.readline() == "ready\n"
        ip("address", "add", f"{CLIENTS}/32", "dev", "far", space=few)
        for name, there in ((edge, CLIENTS), (few, ADDRESS)):
            ip("link", "set", "far", "up", space=name)
            ip("route", "add", f"{there}/32", "dev", "far", space=name)
        yield names
    finally:
        if carrier:
            carrier.kill()
            carrier.wait()
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


async def far_newcomers(start, _binary):
    if os.geteuid() != 0 or not shutil.which("ip") or not os.path.exists("/dev/net/tun"):
        return [("strangers: newcomers 60 ms away", "SKIPPED", "root, iproute2, /dev/net/tun", True)]
    rows = []
    try:
        with spaces() as (home, crowd, few):
            for where, what in KINDS:
                edge = await asyncio.to_thread(start, f"--host={ADDRESS}", through=inside(home))
                try:
                    flooding = subprocess.Popen(
                        inside(crowd, sys.executable, HERE, "flood", str(edge.port), where, what),
                        stdout=subprocess.PIPE, text=True,
                    )
                    await asyncio.sleep(2)
                    asking = await asyncio.to_thread(
                        subprocess.run,
                        inside(few, sys.executable, HERE, "clients", str(edge.port), str(edge.ca), edge.token),
                        capture_output=True, text=True, timeout=60, check=True,
                    )
                    got, median = asking.stdout.split()
                    opened = int(flooding.communicate(timeout=60)[0])
                finally:
                    stopped = edge.stop()
                rows.append((
                    f"strangers: newcomers 60 ms away beside {opened // SECONDS} connections/s, "
                    f"{what}, from {where}",
                    f"{got} of {COUNT}, half of them within {median} s",
                    f"{COUNT} of {COUNT}",
                    int(got) == COUNT and not stopped,
                ))
    except (OSError, subprocess.CalledProcessError) as error:
        why = getattr(error, "stderr", None) or error
        return [("strangers: newcomers 60 ms away", f"SKIPPED: {why}", "namespaces", True)]
    return rows


ROWS = [far_newcomers]


if __name__ == "__main__":
    part, *words = sys.argv[1:]
    if part == "flood":
        flood(*words)
    elif part == "clients":
        asyncio.run(clients(*words))
    else:
        far(*words)
