//! Asking a running gateway over its admin address.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::{cli, locate};

const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer, bytes: a page about thousands of breakers.
const MOST: u64 = 64 * 1024 * 1024;
/// Where the token is if no file is named.
const TOKEN: &str = "SLUICE_ADMIN_TOKEN";

/// What to ask for.
pub(super) struct Question<'a> {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) token: Option<&'a str>,
    /// JSON.
    pub(super) body: Option<String>,
}

/// The address of the gateway: the one that is named, else the config's.
pub(super) fn address(target: &cli::Target) -> Result<SocketAddr, String> {
    if let Some(address) = target.address {
        return Ok(address);
    }
    sluice_proxy::check(&locate::origin(&target.config), &locate::environment())
        .map(|checked| checked.admin())
        .map_err(|rejected| rejected.to_string())
}

/// The token, from a file or the environment; never from the command line, which everybody on the machine
/// can read.
pub(super) fn token(file: Option<&Path>) -> Result<String, String> {
    let text = match file {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?,
        None => locate::environment().0.remove(TOKEN).ok_or_else(|| {
            format!("this needs the admin token: set {TOKEN}, or write --token-file")
        })?,
    };
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("the admin token is empty, or no token".to_owned());
    }
    Ok(token.to_owned())
}

/// The body of the answer, or why there is none.
pub(super) fn ask(address: SocketAddr, question: &Question<'_>) -> Result<String, String> {
    let answer = exchange(address, question).map_err(|error| format!("{address}: {error}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.starts_with("HTTP/1.1 200 ") {
        return Ok(body.to_owned());
    }
    let status = head.lines().next().unwrap_or("no answer");
    Err(format!("{address}: {status}: {}", body.trim()))
}

fn exchange(address: SocketAddr, question: &Question<'_>) -> std::io::Result<String> {
    let Question { method, path, token, body } = question;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut request =
        format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    if let Some(token) = token {
        request.push_str(&format!("Authorization: Bearer {token}\r\n"));
    }
    let body = body.as_deref().unwrap_or_default();
    if !body.is_empty() {
        request.push_str("Content-Type: application/json\r\n");
    }
    request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(MOST).read_to_string(&mut answer)?;
    Ok(answer)
}

/// A name as it stands in a path: all but the plainest characters escaped.
pub(super) fn escaped(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte);
    name.bytes().fold(String::new(), |mut out, byte| {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_a_path() {
        assert_eq!(escaped("endpoint:a/[::1]:80"), "endpoint:a/%5B::1%5D:80");
        assert_eq!(escaped("route:ü %"), "route:%C3%BC%20%25");
    }
}
