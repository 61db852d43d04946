// A service behind the gateway. It knows no token, no secret and no signature: who is calling, the gateway
// tells it in X-MP-*, having removed whatever the caller said under such names.

import { createServer } from "node:http";
import { fileURLToPath } from "node:url";

import { listen } from "../wechat/server.mjs";

export function startBackend(build, port = 0) {
  const orders = new Map();
  const seen = [];
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    seen.push({ method: request.method, url: request.url, user: request.headers["x-mp-user"] });
    const answer = (status, data) => {
      response.writeHead(status, { "Content-Type": "application/json; charset=utf-8" });
      response.end(JSON.stringify({ code: status < 400 ? 0 : status, msg: "", data, build }));
    };
    const user = request.headers["x-mp-user"];
    if (!user) return answer(500, "nobody told me who is calling");
    const mine = orders.get(user) || [];
    if (request.method === "GET") return answer(200, mine);
    if (request.method === "POST") {
      const order = { id: mine.length + 1, ...JSON.parse(body) };
      orders.set(user, [...mine, order]);
      return answer(201, order);
    }
    if (request.method === "PATCH") {
      const order = mine.find((it) => it.id === Number(request.url.split("/").pop()));
      return order ? answer(200, Object.assign(order, JSON.parse(body))) : answer(404, null);
    }
    return answer(405, null);
  });
  return listen(server, port, { seen });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { port } = await startBackend(process.env.BUILD || "v1", Number(process.env.PORT || 9101));
  console.log(`a service on 127.0.0.1:${port}`);
}
