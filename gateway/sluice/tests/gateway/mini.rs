//! What the gateway does for mini-programs.

mod callers;
mod gate;
mod hygiene;
mod location;
mod method_override;
mod pages;
mod prefetch;
mod profile;

/// Two apps of WeChat and one of Alipay.
const APPS: &str = "apps:
  - { id: shop-wx, provider: wechat, appid: wx0123456789abcdef, envelope: code_message }
  - { id: crew-wx, provider: wechat, appid: wxfedcba9876543210 }
  - { id: shop-ali, provider: alipay, appid: \"2021000123\", envelope: problem }
";

/// The Referer of the first app, as WeChat sets it.
fn referer(version: &str) -> String {
    format!("https://servicewechat.com/wx0123456789abcdef/{version}/page-frame.html")
}
