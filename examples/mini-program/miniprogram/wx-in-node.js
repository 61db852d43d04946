// The few functions of `wx` that request.js uses, for Node: what a phone would do, without a phone.

const http = require("node:http");

function wxInNode({ wechat, user, upgrades = [] }) {
  const call = (url, { method = "GET", header = {}, data } = {}) => new Promise((resolve, reject) => {
    const request = http.request(url, { method, headers: header }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk) => { text += chunk; });
      response.on("end", () => {
        let body = text;
        try { body = JSON.parse(text); } catch { /* a text then, as wx.request does it */ }
        resolve({ statusCode: response.statusCode, header: response.headers, data: body });
      });
    });
    request.on("error", reject);
    request.end(data);
  });
  return {
    request({ url, success, fail, ...rest }) {
      // Mini-programs cannot set the Referer; WeChat does.
      const header = { ...rest.header, Referer: "https://servicewechat.com/wx0123456789abcdef/42/page-frame.html" };
      call(url, { ...rest, header }).then(success, (error) => fail({ errMsg: `request:fail ${error.message}` }));
    },
    login({ success, fail }) {
      call(`${wechat}/test/code?user=${user}`)
        .then((answer) => success(answer.data), (error) => fail({ errMsg: `login:fail ${error.message}` }));
    },
    getUpdateManager: () => ({
      onUpdateReady: (then) => then(),
      applyUpdate: () => upgrades.push("restarted"),
    }),
  };
}

module.exports = { wxInNode };
