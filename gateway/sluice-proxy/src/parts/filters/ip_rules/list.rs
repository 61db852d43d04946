//! Addresses from a file that is read again when it changes, without a new config. Whoever writes the
//! file, a script that follows an attack, need not know the rest of the config.
//!
//! The one rule: a file that cannot be read or understood never takes the place of one that was good.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use sluice_engine::cidr::{Set, parse_net};

use crate::base::clock;
use crate::base::yaml::Place;
use crate::lasting::tasks::{self, Owned};
use crate::parts::env::Env;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Bytes of a file, and addresses in it.
const MOST: (u64, usize) = (32 * 1024 * 1024, 500_000);
/// Bad lines that are told of.
const TOLD: usize = 5;

/// The addresses of a file as they were last good.
pub(crate) struct List {
    path: PathBuf,
    /// Whether it keeps callers out: then an empty one lets everybody in.
    deny: bool,
    now: ArcSwap<Addresses>,
    /// What the file was when it was last read, good or bad, and when it was last looked at.
    seen: Mutex<Seen>,
    background: Mutex<Option<Owned>>,
}

impl std::fmt::Debug for List {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("List").field(&self.path).finish()
    }
}

/// What a file says.
struct Addresses {
    set: Set,
    /// Lines with an address or a network.
    count: usize,
    /// Whether it holds a comment: an empty list that somebody has written, and not a script that found nothing.
    commented: bool,
}

impl List {
    /// Reads the file, or records what is wrong with it.
    pub(super) fn build(
        file: &str,
        deny: bool,
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> Option<Arc<Self>> {
        let path = env.path(file);
        // Before reading: what is written meanwhile is news.
        let seen = stamp(&path);
        let addresses = match read(&path) {
            Ok(addresses) => addresses,
            Err(why) => {
                env.problems
                    .error(at, format!("{file}{why}"))
                    .help("write an address or a network on each line; `#` begins a comment");
                return None;
            }
        };
        let list = Arc::new(Self {
            path,
            deny,
            now: ArcSwap::from_pointee(addresses),
            seen: Mutex::new(Seen { read: seen, looked: seen }),
            background: Mutex::new(None),
        });
        env.lists.push(Arc::clone(&list));
        Some(list)
    }

    /// The addresses in force.
    pub(super) fn contains(&self, address: std::net::IpAddr) -> bool {
        self.now.load().set.contains(address)
    }

    /// Begins to watch the file; once the snapshot is in force.
    pub(crate) fn follow(self: &Arc<Self>) {
        let list = Arc::downgrade(self);
        let looking = tasks::supervise("address_list", move || {
            let list = list.clone();
            async move {
                loop {
                    tokio::time::sleep_until(clock::deadline(clock::now().after(LOOK))).await;
                    let Some(list) = list.upgrade() else { return };
                    list.look().await;
                }
            }
        });
        let mut background = self.background.lock().unwrap_or_else(PoisonError::into_inner);
        *background = Some(Owned::new(tasks::control(looking)));
    }

    /// Stops watching, once another snapshot does.
    pub(crate) fn retire(&self) {
        *self.background.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the file if it has changed and has stayed as it is since the last look: of a list that is being
    /// written, half would let in whom the other half keeps out.
    async fn look(&self) {
        let path = self.path.clone();
        let last = *self.seen();
        let looked = tokio::task::spawn_blocking(move || {
            let now = stamp(&path);
            (now, (now != last.read && now == last.looked).then(|| read(&path)))
        });
        let Ok((now, read)) = looked.await else { return };
        self.seen().looked = now;
        let Some(read) = read else { return };
        self.seen().read = now;
        let file = self.path.display();
        match read {
            Ok(new) => self.replace(new),
            Err(why) => {
                tracing::error!("{file}{why}; the addresses that were read before stay in force");
            }
        }
    }
}

impl List {
    fn replace(&self, new: Addresses) {
        let (file, before, count) = (self.path.display(), self.now.load().count, new.count);
        if self.deny && count == 0 && before > 0 && !new.commented {
            tracing::error!(
                "{file}: no address is left of {before}; those stay in force (write a line like `# none` to let everybody in)"
            );
            return;
        }
        if count * 2 < before {
            tracing::warn!("{file}: {count} addresses were read, {before} before");
        } else {
            tracing::info!("{file}: {count} addresses were read, {before} before");
        }
        self.now.store(Arc::new(new));
    }
}

#[derive(Clone, Copy)]
struct Seen {
    read: Stamp,
    looked: Stamp,
}

/// Tells a file from the one that was there before: its number, length and time; nothing if there is none.
type Stamp = Option<(u64, u64, std::time::SystemTime)>;

fn stamp(path: &std::path::Path) -> Stamp {
    use std::os::unix::fs::MetadataExt as _;
    let file = std::fs::metadata(path).ok()?;
    Some((file.ino(), file.len(), file.modified().ok()?))
}

/// The addresses, or what is wrong, beginning with the line.
fn read(path: &std::path::Path) -> Result<Addresses, String> {
    use std::io::Read as _;
    let mut text = String::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(MOST.0 + 1).read_to_string(&mut text));
    match read {
        Err(error) => Err(format!(": cannot be read: {error}")),
        Ok(bytes) if bytes as u64 > MOST.0 => Err(format!(": larger than {} MiB", MOST.0 >> 20)),
        Ok(_) => parse(&text),
    }
}

fn parse(text: &str) -> Result<Addresses, String> {
    let (mut nets, mut wrong, mut more) = (Vec::new(), String::new(), 0);
    let mut commented = false;
    for (number, line) in text.lines().enumerate() {
        commented |= line.contains('#');
        let entry = line.split('#').next().unwrap_or("").trim();
        if entry.is_empty() {
            continue;
        }
        match parse_net(entry) {
            Ok(net) => nets.push(net),
            Err(_) if more >= TOLD => more += 1,
            Err(why) => {
                more += 1;
                let separator = if wrong.is_empty() { "" } else { "; " };
                wrong += &format!("{separator}:{}: {why}", number + 1);
            }
        }
        if nets.len() > MOST.1 {
            return Err(format!(":{}: more than {} addresses", number + 1, MOST.1));
        }
    }
    if more > TOLD {
        wrong += &format!("; and {} more", more - TOLD);
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    Ok(Addresses { count: nets.len(), set: Set::new(nets), commented })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_list_that_is_being_written_is_not_read_yet() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deny.txt");
        std::fs::write(&path, "192.0.2.1\n").unwrap();
        let seen = stamp(&path);
        let list = List {
            path: path.clone(),
            deny: true,
            now: ArcSwap::from_pointee(read(&path).unwrap()),
            seen: Mutex::new(Seen { read: seen, looked: seen }),
            background: Mutex::new(None),
        };
        let holds = |last| list.contains([192, 0, 2, last].into());
        std::fs::write(&path, "").unwrap();
        list.look().await;
        assert!(holds(1), "it may be half of the list");
        std::fs::write(&path, "192.0.2.1\n192.0.2.2\n").unwrap();
        list.look().await;
        assert!(holds(1) && !holds(2), "it has changed again");
        list.look().await;
        assert!(holds(1) && holds(2));
    }

    #[tokio::test]
    async fn a_deny_list_that_a_script_has_emptied_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deny.txt");
        std::fs::write(&path, "192.0.2.1\n").unwrap();
        let list = |deny| List {
            path: path.clone(),
            deny,
            now: ArcSwap::from_pointee(read(&path).unwrap()),
            seen: Mutex::new(Seen { read: None, looked: None }),
            background: Mutex::new(None),
        };
        let (deny, allow) = (list(true), list(false));
        let holds = |list: &List| list.contains([192, 0, 2, 1].into());
        for (text, kept) in [("", true), ("\n \n", true), ("# nobody\n", false)] {
            std::fs::write(&path, text).unwrap();
            for list in [&deny, &allow] {
                list.look().await;
                list.look().await;
            }
            assert_eq!((holds(&deny), holds(&allow)), (kept, false), "{text:?}");
        }
    }

    #[test]
    fn bad_lines_are_told_by_their_numbers() {
        let good = parse("# a list\n10.0.0.0/8\n\n 192.0.2.1 # one\n2001:db8::/32\n").unwrap();
        assert_eq!(good.count, 3);
        let good = good.set;
        assert!(good.contains([10, 1, 1, 1].into()) && good.contains([192, 0, 2, 1].into()));
        assert!(!good.contains([192, 0, 2, 2].into()));
        let bad = parse("10.0.0.0/8\nnonsense\n10.0.0.1/8\n").err().unwrap();
        assert!(bad.starts_with(":2: ") && bad.contains("; :3: "), "{bad}");
        let many = parse(&"x\n".repeat(100)).err().unwrap();
        assert!(many.ends_with("; and 95 more"), "{many}");
    }
}
