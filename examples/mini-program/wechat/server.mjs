// As much of WeChat as a login needs: a code is good once, and becomes an openid and a session_key.
// `POST /test/code?user=alice` is what the phone does when the program calls wx.login.

import { createHash, randomBytes } from "node:crypto";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";

export const APPID = "wx0123456789abcdef";
export const SECRET = "the-secret-that-only-gateway-and-wechat-know";

export function startWechat(port = 0) {
  const codes = new Map();
  const asked = { logins: 0 };
  const server = createServer((request, response) => {
    const url = new URL(request.url, "http://wechat");
    const answer = (body) => {
      // WeChat says text/plain, whatever it is.
      response.setHeader("Content-Type", "text/plain");
      response.end(JSON.stringify(body));
    };
    if (url.pathname === "/test/code") {
      const code = randomBytes(16).toString("hex");
      codes.set(code, url.searchParams.get("user"));
      return answer({ code });
    }
    if (url.pathname !== "/sns/jscode2session") {
      response.statusCode = 404;
      return response.end();
    }
    asked.logins += 1;
    const said = (name) => url.searchParams.get(name);
    if (said("appid") !== APPID) return answer({ errcode: 40013, errmsg: "invalid appid" });
    if (said("secret") !== SECRET) return answer({ errcode: 40125, errmsg: "invalid appsecret" });
    const user = codes.get(said("js_code"));
    if (!user) return answer({ errcode: 40029, errmsg: "invalid code" });
    codes.delete(said("js_code"));
    const openid = createHash("sha256").update(user).digest("base64url").slice(0, 28);
    return answer({ openid, session_key: randomBytes(16).toString("base64") });
  });
  return listen(server, port, { asked });
}

export function listen(server, port, more) {
  return new Promise((resolve) => {
    server.listen(port, "127.0.0.1", () => {
      resolve({ ...more, port: server.address().port, close: () => server.close() });
    });
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { port } = await startWechat(Number(process.env.PORT || 9100));
  console.log(`a fake WeChat on 127.0.0.1:${port}`);
}
