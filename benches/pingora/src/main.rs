//! A minimal proxy on Pingora: forwards everything to one address and adds `X-Forwarded-For`.
//!
//! `sluice-bench-pingora THREADS PORT BACKEND_PORT [h2c] [grpc] [tls CERTIFICATE KEY]`. Threads do not steal
//! work, connections to the back end kept, clients' connections kept for an hour.

use std::net::{Ipv4Addr, SocketAddr};

use async_trait::async_trait;
use pingora::apps::HttpServerOptions;
use pingora::http::RequestHeader;
use pingora::listeners::tls::TlsSettings;
use pingora::prelude::{HttpPeer, ProxyHttp, Result, Server, Session, http_proxy_service};
use pingora::server::configuration::ServerConf;
use pingora::tls::ssl::SslVersion;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEEPALIVE_S: u64 = 3600;

struct Forward {
    backend: HttpPeer,
}

#[async_trait]
impl ProxyHttp for Forward {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn early_request_filter(&self, session: &mut Session, _: &mut ()) -> Result<()> {
        session.set_keepalive(Some(KEEPALIVE_S));
        Ok(())
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(self.backend.clone()))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        _: &mut (),
    ) -> Result<()> {
        if let Some(client) = session.client_addr().and_then(|address| address.as_inet()) {
            request.append_header("X-Forwarded-For", client.ip().to_string())?;
        }
        Ok(())
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [threads, port, backend, rest @ ..] = words.as_slice() else {
        eprintln!(
            "usage: sluice-bench-pingora THREADS PORT BACKEND_PORT [h2c] [grpc] [tls CERTIFICATE KEY]"
        );
        std::process::exit(2);
    };
    let backend: u16 = backend.parse().expect("a port");
    let mut peer =
        HttpPeer::new(SocketAddr::from((Ipv4Addr::LOCALHOST, backend)), false, String::new());
    if rest.contains(&"grpc") {
        peer.options.set_http_version(2, 2);
        peer.options.max_h2_streams = 128;
    }

    let conf = ServerConf {
        threads: threads.parse().expect("a number"),
        work_stealing: false,
        upstream_keepalive_pool_size: 256,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Forward { backend: peer });
    if rest.contains(&"h2c")
        && let Some(proxy) = service.app_logic_mut()
    {
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        proxy.server_options = Some(options);
    }
    let address = format!("127.0.0.1:{port}");
    match rest.iter().position(|word| *word == "tls").and_then(|at| rest.get(at + 1..)) {
        Some([certificate, key, ..]) => {
            let mut tls = TlsSettings::intermediate(certificate, key).expect("a certificate");
            tls.set_min_proto_version(Some(SslVersion::TLS1_3)).expect("TLS 1.3");
            tls.enable_h2();
            service.add_tls_with_settings(&address, None, tls);
        }
        _ => service.add_tcp(&address),
    }
    server.add_service(service);
    server.run_forever();
}
