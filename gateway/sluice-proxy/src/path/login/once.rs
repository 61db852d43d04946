//! What came of a code, which is good once: looked up, here and in what gateways share, before it is sent, and
//! remembered after. The one rule: whoever has sent a byte of a code keeps what came of it, and that is what
//! everybody gets who comes with the same code.

use std::time::Duration;

use bytes::Bytes;

use crate::base::clock::{self, Moment};
use crate::base::fault::Fault;
use crate::lasting::login::flights::{Key, Refused, Settled};
use crate::lasting::vault::Vault;
use crate::parts::login::store::Stores;

/// How long what became of a code is remembered; platforms forget a code after 5 minutes.
const REMEMBERED: Duration = Duration::from_secs(300);
/// How often it is looked whether another gateway has an answer.
const LOOK: Duration = Duration::from_millis(25);
/// Somebody has it.
const PENDING: &[u8] = b"p";

/// What came of trying.
pub(super) enum Tried {
    /// The code is spent.
    Sent(Settled),
    /// It is as good as before.
    Unsent(Refused),
}

/// What becomes of the code, and whether this is news.
pub(super) async fn settle(
    stores: &Stores,
    name: &str,
    deadline: Moment,
    attempt: impl AsyncFnOnce() -> Tried,
) -> (Settled, bool) {
    if let Some(settled) = recall(&stores.here, name).await {
        return (settled, false);
    }
    let Some(shared) = &stores.shared else {
        return (finish(stores, name, None, attempt().await).await, true);
    };
    loop {
        match shared.put_new(name, PENDING, REMEMBERED).await {
            Ok(true) => {
                return (finish(stores, name, Some(shared), attempt().await).await, true);
            }
            // Without Redis the platform is who knows that a code is good only once.
            Err(_) => return (finish(stores, name, None, attempt().await).await, true),
            Ok(false) => {}
        }
        if let Some(settled) = recall(shared, name).await {
            return (settled, false);
        }
        if clock::now().after(LOOK) >= deadline {
            // Another gateway has sent it, and may never say what came of it.
            return (Err(Fault::ProviderTimeout.into()), false);
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn finish(stores: &Stores, name: &str, claimed: Option<&Vault>, tried: Tried) -> Settled {
    match tried {
        Tried::Sent(settled) => {
            let kept = keep(&settled);
            // What cannot be kept is asked for again, and the platform says that the code was used.
            let _ = stores.here.put(name, &kept, REMEMBERED).await;
            if let Some(shared) = claimed {
                let _ = shared.put(name, &kept, REMEMBERED).await;
            }
            settled
        }
        Tried::Unsent(refused) => {
            if let Some(shared) = claimed {
                let _ = shared.remove(name).await;
            }
            Err(refused)
        }
    }
}

/// Of a code nothing is kept but a digest.
pub(super) fn name(kind: &str, key: &Key) -> String {
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sluice:{kind}:code:{{{hex}}}")
}

fn keep(settled: &Settled) -> Vec<u8> {
    match settled {
        Ok(body) => [b"o", &body[..]].concat(),
        Err(refused) => {
            let seconds = refused.retry_after.map_or(0, |after| after.as_secs());
            format!("f{} {seconds}", refused.fault.reason()).into_bytes()
        }
    }
}

async fn recall(vault: &Vault, name: &str) -> Option<Settled> {
    let kept = vault.get(name).await.ok()??;
    match kept.plain.split_first()? {
        (b'o', body) => Some(Ok(Bytes::copy_from_slice(body))),
        (b'f', text) => {
            let (reason, seconds) = std::str::from_utf8(text).ok()?.split_once(' ')?;
            let fault = Fault::ALL.iter().copied().find(|fault| fault.reason() == reason)?;
            let seconds = seconds.parse().ok().filter(|seconds| *seconds > 0);
            Some(Err(Refused { fault, retry_after: seconds.map(Duration::from_secs) }))
        }
        _ => None,
    }
}
