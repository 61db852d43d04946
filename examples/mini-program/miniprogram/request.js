// What pages of the mini-program call instead of wx.request. It logs in when it has to, says which build
// this is, signs what it sends, and tells the app when there is a newer version.
//
//   const { createClient } = require("./request.js");
//   const api = createClient({ base: "https://api.example.com", app: "shop", version: "3.4.0" });
//   const orders = await api.request("GET", "/api/orders?page=1");
//
// The one rule: many calls at once log in once.

const { sha256, hmac, utf8, hex, fromHex, toBase64url } = require("./sha256.js");

// What a refusal says in `reason` where a new login helps.
const LOG_IN_AGAIN = [
  "token_missing", "token_expired", "token_invalid", "token_revoked",
  "session_ended", "kicked", "identity_missing",
];

class Refused extends Error {
  constructor(answer) {
    const body = answer.data || {};
    super(`${answer.statusCode} ${body.reason || ""} ${body.msg || ""}`);
    this.status = answer.statusCode;
    this.reason = body.reason;
    this.data = body.data;
    this.traceId = body.trace_id;
  }
}

function createClient(options) {
  const wx = options.wx || globalThis.wx;
  // Called with "available" once, and with "required" and what the gateway says whenever it refuses.
  const onUpgrade = options.onUpgrade || ((kind) => restart(wx, kind));
  let session = null; // { token, signKey, signId }
  let loggingIn = null; // the login under way, which everybody waits for
  let clockOff = 0; // how far the gateway's clock is ahead of ours, milliseconds
  let hinted = false;

  function send(method, path, body, headers) {
    const header = {
      "X-MP-App": options.app,
      "X-MP-Version": options.version,
      "X-MP-Env": options.env || "release",
      ...headers,
    };
    // A text goes out as it is, byte for byte; an object would be written anew by wx.request.
    const data = body === undefined ? undefined : JSON.stringify(body);
    if (data !== undefined) header["Content-Type"] = "application/json";
    // wx.request has no PATCH: a POST stands for it.
    const stands = method === "PATCH";
    if (stands) header["X-HTTP-Method-Override"] = method;
    if (session && headers) Object.assign(header, signature(method, path, data || ""));
    return new Promise((resolve, reject) => {
      wx.request({
        url: options.base + path,
        method: stands ? "POST" : method,
        header,
        data,
        dataType: "json",
        timeout: 20000,
        // Every status comes here; only a broken connection fails.
        success: resolve,
        fail: (error) => reject(new Error(error.errMsg)),
      });
    });
  }

  // The gateway reads the method that counts, so PATCH is signed as PATCH.
  function signature(method, path, data) {
    if (!session.signKey) return {};
    const [front, query] = path.split("?");
    const name = (pair) => pair.split("=")[0];
    const sorted = query
      ? query.split("&").map((pair, at) => [pair, at]).sort(([a, i], [b, j]) => {
        if (name(a) !== name(b)) return name(a) < name(b) ? -1 : 1;
        return i - j;
      }).map(([pair]) => pair)
      : [];
    const target = sorted.length ? `${front}?${sorted.join("&")}` : front;
    const time = String(Date.now() + clockOff);
    const nonce = hex(Uint8Array.from({ length: 16 }, () => Math.floor(Math.random() * 256)));
    const lines = [method, target, hex(sha256(utf8(data))), time, nonce, session.signId];
    const signed = toBase64url(hmac(session.signKey, utf8(lines.join("\n"))));
    return { "X-MP-Sign": `v1;t=${time};n=${nonce};s=${signed}` };
  }

  // Logs in, or waits for the login under way: ten calls that find the token expired are one login.
  function logIn() {
    loggingIn = loggingIn || exchange().finally(() => { loggingIn = null; });
    return loggingIn;
  }

  async function exchange() {
    session = null;
    const code = await new Promise((resolve, reject) => {
      wx.login({ success: (it) => resolve(it.code), fail: (error) => reject(new Error(error.errMsg)) });
    });
    const answer = await send("POST", "/auth/login", { app: options.app, code });
    judge(answer);
    if (answer.statusCode !== 200) throw new Refused(answer);
    const { token, sign_key: signKey, sign_id: signId } = answer.data.data;
    session = { token, signKey: signKey && fromHex(signKey), signId };
  }

  // Looks for what an answer says about versions.
  function judge(answer) {
    const said = Object.entries(answer.header).find(([name]) => name.toLowerCase() === "x-mp-upgrade");
    if (!said) return;
    if (said[1] === "required") onUpgrade("required", answer.data && answer.data.data);
    else if (!hinted) {
      hinted = true;
      onUpgrade("available");
    }
  }

  async function attempt(method, path, body) {
    if (!session) await logIn();
    const used = session;
    const answer = await send(method, path, body, { Authorization: `Bearer ${used.token}` });
    judge(answer);
    return { answer, used };
  }

  // Sends a request and gives back the body of its answer, or throws `Refused`.
  async function request(method, path, body) {
    let { answer, used } = await attempt(method, path, body);
    const reason = answer.data && answer.data.reason;
    // A refused request was not carried out, so sending it again is safe whatever it is.
    if (answer.statusCode === 401 && LOG_IN_AGAIN.includes(reason)) {
      // Somebody else may have logged in while this call was under way.
      if (session === used) await logIn();
      ({ answer } = await attempt(method, path, body));
    } else if (answer.statusCode === 401 && reason === "signature_expired") {
      clockOff = answer.data.server_time - Date.now();
      ({ answer } = await attempt(method, path, body));
    }
    if (answer.statusCode >= 400) throw new Refused(answer);
    return answer.data;
  }

  return { request };
}

// How a mini-program gets its new version: the platform has fetched it, or will; a restart applies it.
function restart(wx, kind) {
  const manager = wx.getUpdateManager && wx.getUpdateManager();
  if (!manager) return;
  manager.onUpdateReady(() => {
    if (kind === "required") manager.applyUpdate();
  });
}

module.exports = { createClient, Refused };
