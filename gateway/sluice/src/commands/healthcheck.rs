//! `sluice healthcheck`: asks the admin port for readiness, for images without a shell or curl.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use super::{FAILED, complain, print};
use crate::{cli, locate};

const TIMEOUT: Duration = Duration::from_secs(2);

pub(super) fn run(args: &cli::Healthcheck) -> ExitCode {
    let address = match args.address {
        Some(address) => address,
        None => match sluice_proxy::check(&locate::origin(&args.config), &locate::environment()) {
            Ok(checked) => checked.admin(),
            Err(rejected) => return complain(FAILED, &rejected.to_string()),
        },
    };
    match ask(address) {
        Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => print("ready\n"),
        Ok(answer) => complain(FAILED, answer.lines().last().unwrap_or("no answer")),
        Err(error) => complain(FAILED, &format!("{address}: {error}")),
    }
}

fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer)?;
    Ok(answer)
}
