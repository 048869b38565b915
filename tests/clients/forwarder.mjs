// A TCP forwarder that can cut every connection it carries, as a network does.

import net from "node:net";
import { once } from "node:events";

export async function forwarder(port) {
  const open = new Set();
  const carrier = { accepted: 0 };
  const server = net.createServer((near) => {
    carrier.accepted += 1;
    const far = net.connect(port, "127.0.0.1");
    for (const [from, to] of [[near, far], [far, near]]) {
      open.add(from);
      from.pipe(to);
      from.on("error", () => {});
      from.on("close", () => {
        open.delete(from);
        to.destroy();
      });
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  carrier.port = server.address().port;
  // Resets every connection, on both sides; new ones are carried as before.
  carrier.cut = () => {
    const count = open.size;
    for (const socket of [...open]) socket.resetAndDestroy();
    return count;
  };
  carrier.close = async () => {
    carrier.cut();
    server.close();
    await once(server, "close");
  };
  return carrier;
}
